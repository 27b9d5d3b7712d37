"""RAVDESS, the speech part (Livingstone and Russo, PLOS ONE 13, 2018; zenodo.org/records/1188976): 24 actors, English.

Raw layout (`Audio_Speech_Actors_01-24.zip`):

    Actor_01/03-01-06-01-02-01-01.wav

Fields of the name: modality (03 audio only), channel (01 speech, 02 song), emotion (01 neutral, 02 calm, 03 happy, 04
sad, 05 angry, 06 fearful, 07 disgust, 08 surprised), intensity (01 normal, 02 strong; neutral has no strong),
statement, repetition, actor (odd male, even female). The design is complete, so every one of the 1,440 recordings
that is missing can be named. Copies that unpack the archive twice are common: their second half has the ids of the
first. Songs are left out by choice. Splits are made by actor: there are two sentences only.
"""

from itertools import product
from pathlib import Path

from harmonifuse_core.data.corpora.entries import BY_SPEAKER, Corpus, Entries, Entry, LeftOut, Published, Reason
from harmonifuse_core.data.corpora.reading import audio_below, shown

EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful", "07": "disgust",
    "08": "surprised",
}  # fmt: skip
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}
ACTORS = [f"{n:02d}" for n in range(1, 25)]
EXPECTED = [
    "-".join(("03", "01", emotion, intensity, statement, repetition, actor))
    for actor, emotion, intensity, statement, repetition in product(
        ACTORS, EMOTIONS, INTENSITIES, STATEMENTS, ("01", "02")
    )
    if (emotion, intensity) != ("01", "02")
]


def entries(raw: Path, options) -> Entries:
    found = audio_below(raw)
    for path in found:
        yield _entry(path, shown(path, raw))
    if found:
        for name in sorted(set(EXPECTED) - {path.stem for path in found}):
            yield LeftOut(f"ravdess-{name}", Reason.MISSING, f"Actor_{name[-2:]}/{name}.wav is not in the folder")


def _entry(path: Path, where: str) -> Entry | LeftOut:
    item, parts = f"ravdess-{path.stem}", path.stem.split("-")
    if len(parts) != 7 or not all(part.isdigit() and len(part) == 2 for part in parts):
        return LeftOut(item, Reason.DAMAGED, f"{where}: the name is not seven numbers like 03-01-06-01-02-01-12")
    modality, channel, emotion, intensity, statement, _, actor = parts
    if channel == "02" or modality != "03":
        return LeftOut(item, Reason.CHOICE, "song, not speech" if channel == "02" else "from a video, not audio only")
    for what, code, known in (
        ("emotion", emotion, EMOTIONS), ("intensity", intensity, INTENSITIES), ("statement", statement, STATEMENTS),
        ("actor", actor, ACTORS), ("channel", channel, ("01", "02")),
    ):  # fmt: skip
        if code not in known:
            return LeftOut(item, Reason.UNKNOWN_LABEL, f"{where}: {what} {code!r} is none of {', '.join(known)}")
    return Entry(
        id=item,
        audio=path,
        text=STATEMENTS[statement],
        speaker=f"ravdess-{actor}",
        labels={
            "emotion": EMOTIONS[emotion], "intensity": INTENSITIES[intensity], "sentence": statement,
            "gender": "m" if int(actor) % 2 else "f", "language": "en",
        },
        where=where,
    )  # fmt: skip


CORPUS = Corpus(
    name="ravdess",
    title="RAVDESS (speech)",
    licence="CC BY-NC-SA 4.0",
    source="https://zenodo.org/records/1188976",
    entries=entries,
    layout="Actor_01 to Actor_24 with files like 03-01-06-01-02-01-01.wav",
    published=Published(
        len(EXPECTED), by="emotion", parts={name: 96 if name == "neutral" else 192 for name in EMOTIONS.values()}
    ),
    rate=48_000,
    splits=BY_SPEAKER,
    counted=("emotion", "intensity", "gender"),
)
