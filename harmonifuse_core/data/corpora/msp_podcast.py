"""MSP-Podcast (Lotfian and Busso, IEEE Transactions on Affective Computing 10, 2019): natural emotion, by licence.

Raw layout (readme.txt of releases 1.11 and 1.12; earlier ones spell the file labels_concensus.csv):

    readme.txt                              `Release 1.12 (June 6, 2024)`
    Audios/MSP-PODCAST_0001_0008.wav
    Transcripts/MSP-PODCAST_0001_0008.txt
    Labels/labels_consensus.csv             FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set

Classes: A angry, S sad, H happy, U surprised, F fearful, D disgust, C contempt, N neutral; O (other) and X (no
agreement) are left out by choice. Splits are the authors' (`train`, `dev`, `test1`, `test2`); the test sets share
speakers with each other, and utterances of unknown speakers are in train only. The labels of Test3 are not released.
"""

import os
import re
from pathlib import Path

from harmonifuse_core.data.corpora.entries import Corpus, Entries, Entry, LeftOut, Published, Reason, classify
from harmonifuse_core.data.corpora.reading import Row, first_folder, gender, lines, number, table

EMOTIONS = {
    "A": "angry", "S": "sad", "H": "happy", "U": "surprised", "F": "fearful", "D": "disgust", "C": "contempt",
    "N": "neutral",
}  # fmt: skip
LEFT_OUT = {"O": "label O, other", "X": "label X, no agreement among the annotators"}
SPLITS = {
    "Train": "train",
    "Development": "dev",
    "Validation": "dev",
    "Test1": "test1",
    "Test2": "test2",
    "Test3": "test3",
}
LISTS = ("labels_consensus.csv", "labels_concensus.csv")
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
RELEASES = {
    "1.11": Published(149_307, by="split", parts={"train": 84_030, "dev": 19_815, "test1": 30_647, "test2": 14_815},
                      before_choice=True, note="release 1.11 without Test3"),
    "1.12": Published(207_136, before_choice=True, note="release 1.12 with Test3, whose labels are not released"),
}  # fmt: skip


def entries(raw: Path, options) -> Entries:
    root, listing = _labels(raw)
    if root is None:
        return
    audio = root / "Audios" if (root / "Audios").is_dir() else root / "Audio"
    for row in table(listing, raw, COLUMNS):
        yield row if isinstance(row, LeftOut) else _entry(row, root, audio, raw)


def _labels(raw: Path) -> tuple[Path | None, Path | None]:
    for name in LISTS:
        root = first_folder(raw, ("*",), f"Labels/{name}")
        if root:
            return root, root / "Labels" / name
    return None, None


def _entry(row: Row, root: Path, audio: Path, raw: Path) -> Entry | LeftOut:
    name = row["FileName"]
    item = name.removesuffix(".wav") or row.where
    if row["EmoClass"] in LEFT_OUT:
        return LeftOut(item, Reason.CHOICE, LEFT_OUT[row["EmoClass"]])
    emotion = classify(row["EmoClass"], EMOTIONS, item, row.where, "EmoClass")
    split = classify(row["Split_Set"], SPLITS, item, row.where, "Split_Set")
    for value in (emotion, split):
        if isinstance(value, LeftOut):
            return value
    speaker = row["SpkrID"]
    return Entry(
        id=item,
        audio=audio / name,
        text=_transcript(root / "Transcripts" / f"{Path(item).name}.txt", raw),
        speaker=f"msp-{speaker}" if speaker and speaker.lower() != "unknown" else "",
        split=split,
        labels={
            "emotion": emotion, "valence": number(row["EmoVal"]), "activation": number(row["EmoAct"]),
            "dominance": number(row["EmoDom"]), "gender": gender(row["Gender"]), "language": "en",
        },
        where=row.where,
    )  # fmt: skip


def _transcript(path: Path, raw: Path) -> str:
    if not os.path.isfile(path):
        return ""
    return " ".join(line.text for line in lines(path, raw) if not isinstance(line, LeftOut))


def published(raw: Path, options) -> Published:
    """By the release that readme.txt states."""
    root, _ = _labels(raw)
    readme = root / "readme.txt" if root else raw / "readme.txt"
    text = (
        " ".join(line.text for line in lines(readme, raw) if not isinstance(line, LeftOut)) if readme.is_file() else ""
    )
    release = re.search(r"Release (\d+\.\d+)", text)
    if release is None:
        return Published(note="no readme.txt states the release")
    return RELEASES.get(release[1], Published(note=f"release {release[1]}; counts are known of {', '.join(RELEASES)}"))


CORPUS = Corpus(
    name="msp_podcast",
    title="MSP-Podcast",
    licence="academic or commercial licence of UT Dallas",
    source="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html",
    entries=entries,
    layout="Audios/*.wav and Labels/labels_consensus.csv",
    published=RELEASES["1.12"],
    published_for=published,
    rate=16_000,
    counted=("emotion", "gender"),
)
