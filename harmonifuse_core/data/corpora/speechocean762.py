"""speechocean762 (Zhang et al., Interspeech 2021; OpenSLR 101): English read by 250 Mandarin speakers, half children.

Raw layout (Kaldi tables, paths relative to the folder):

    train/wav.scp           `000010011 WAVE/SPEAKER0001/000010011.WAV`
    train/text              `000010011 WE CALL IT BEAR`
    train/utt2spk           `000010011 0001`        train/spk2gender  `0001 m`      train/spk2age  `0001 6`
    test/...                the same
    WAVE/SPEAKER0001/000010011.WAV

Splits are the authors' (train, test); `--dev-share 0.1` takes a dev set of other speakers out of train. Transcripts
come in capitals and are written in lower case.
"""

from pathlib import Path

from harmonifuse_core.data.corpora.entries import Corpus, Entries, Entry, LeftOut, Published, Reason
from harmonifuse_core.data.corpora.reading import first_folder, gender, pairs, whole

COUNTS = {"train": 2_500, "test": 2_500}


def entries(raw: Path, options) -> Entries:
    root = first_folder(raw, ("speechocean762", "*"), "train/wav.scp")
    if root is None:
        return
    for split in COUNTS:
        yield from _part(root, root / split, split, raw)


def _part(root: Path, folder: Path, split: str, raw: Path) -> Entries:
    broken: list[LeftOut] = []
    texts, speakers, genders, ages = (
        {key: value for key, value, _ in pairs(folder / name, raw, broken)}
        for name in ("text", "utt2spk", "spk2gender", "spk2age")
    )
    files = pairs(folder / "wav.scp", raw, broken)
    yield from broken
    for name, path, where in files:
        speaker = speakers.get(name, "")
        yield Entry(
            id=f"so762-{name}",
            audio=root / path,
            text=texts.get(name, "").lower(),
            speaker=f"so762-{speaker}" if speaker else "",
            split=split,
            labels={"gender": gender(genders.get(speaker, "")), "age": whole(ages.get(speaker, "")), "language": "en"},
            where=where,
        )
    for name in sorted(set(texts) - {name for name, _, _ in files}):
        yield LeftOut(f"so762-{name}", Reason.MISSING, f"{split}/text has it, {split}/wav.scp has not")


CORPUS = Corpus(
    name="speechocean762",
    title="speechocean762",
    licence="free for commercial and non-commercial use (OpenSLR 101)",
    source="https://www.openslr.org/101",
    entries=entries,
    layout="train/wav.scp, test/wav.scp and WAVE/",
    published=Published(sum(COUNTS.values()), by="split", parts=COUNTS),
    rate=16_000,
    needs_text=True,
    counted=("gender", "age"),
)
