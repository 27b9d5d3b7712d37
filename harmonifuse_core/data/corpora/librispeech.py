"""LibriSpeech (OpenSLR 12; Panayotov et al., ICASSP 2015): read English audiobooks.

Raw layout, after unpacking any of the archives into one folder (its own README.TXT, section 2.1):

    LibriSpeech/SPEAKERS.TXT                            `14   | F | train-clean-360  | 25.03 | Kristin LeMoine`
    LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt      `1089-134686-0000 HE HOPED THERE WOULD BE STEW`
    LibriSpeech/test-clean/1089/134686/1089-134686-0000.flac

Splits: `train` (all train subsets together), `dev-clean`, `dev-other`, `test-clean`, `test-other`; the field `subset`
has the published name. Transcripts come in capitals without punctuation and are written in lower case.
"""

from pathlib import Path

from harmonifuse_core.data.corpora.entries import (
    Corpus,
    CorpusError,
    Entries,
    Entry,
    LeftOut,
    Option,
    Published,
    Reason,
)
from harmonifuse_core.data.corpora.reading import first_folder, gender, lines, shown, visible

SUBSETS = {
    "train-clean-100": 28_539, "train-clean-360": 104_014, "train-other-500": 148_688, "dev-clean": 2_703,
    "dev-other": 2_864, "test-clean": 2_620, "test-other": 2_939,
}  # fmt: skip
SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3")  # .flac as published; the others are what people convert it to
LAYOUT = "subsets like test-clean/SPEAKER/CHAPTER/*.trans.txt"


def entries(raw: Path, options) -> Entries:
    wanted = options["subsets"] or list(SUBSETS)
    if unknown := [name for name in wanted if name not in SUBSETS]:
        raise CorpusError(f"subset {unknown[0]!r} is unknown; LibriSpeech has: {', '.join(SUBSETS)}")
    root = first_folder(raw, ("LibriSpeech", "*"), "*/*/*/*.trans.txt")
    if root is None:
        return
    genders = _genders(root / "SPEAKERS.TXT", raw)
    for folder in visible(path for path in root.iterdir() if path.is_dir()):
        if folder.name not in SUBSETS:
            if any(folder.glob("*/*/*.trans.txt")):
                yield LeftOut(
                    shown(folder, raw), Reason.UNKNOWN_LABEL, f"a subset that is none of {', '.join(SUBSETS)}"
                )
        elif folder.name in wanted:
            for chapter in visible(path for path in folder.glob("*/*") if path.is_dir()):
                yield from _chapter(chapter, folder.name, genders, raw)


def _genders(path: Path, raw: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    cells = [line.text.split("|") for line in lines(path, raw) if not isinstance(line, LeftOut) and line.text[0] != ";"]
    return {row[0].strip(): gender(row[1]) for row in cells if len(row) > 1}


def _chapter(chapter: Path, subset: str, genders: dict[str, str], raw: Path) -> Entries:
    audio = {path.stem: path for path in reversed(visible(chapter.iterdir())) if path.suffix.lower() in SUFFIXES}
    named = set()
    for listing in visible(chapter.glob("*.trans.txt")):
        for line in lines(listing, raw):
            if isinstance(line, LeftOut):
                yield line
                continue
            name, _, text = line.text.partition(" ")
            named.add(name)
            speaker = chapter.parent.name
            yield Entry(
                id=f"libri-{name}",
                audio=audio.get(name, chapter / f"{name}.flac"),
                text=text.lower(),
                speaker=f"libri-{speaker}",
                split="train" if subset.startswith("train") else subset,
                labels={"gender": genders.get(speaker, ""), "language": "en", "subset": subset},
                where=line.where,
                dataset=f"librispeech-{subset}",
            )
    for name in sorted(set(audio) - named):
        yield LeftOut(f"libri-{name}", Reason.NO_ENTRY, f"{shown(audio[name], raw)} stands in no .trans.txt")


CORPUS = Corpus(
    name="librispeech",
    title="LibriSpeech",
    licence="CC BY 4.0",
    source="https://www.openslr.org/12",
    entries=entries,
    layout=LAYOUT,
    published=Published(sum(SUBSETS.values()), by="subset", parts=SUBSETS, optional=True),
    rate=16_000,
    needs_text=True,
    counted=("subset", "gender"),
    options=(
        Option(
            "subsets",
            f"subsets to take, with commas between (default: all there are of {', '.join(SUBSETS)})",
            (),
            list,
        ),
    ),
)
