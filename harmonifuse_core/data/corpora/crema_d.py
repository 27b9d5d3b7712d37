"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 5, 2014): 91 actors, 12 English sentences, 6 emotions.

Raw layout (github.com/CheyneyComputerScience/CREMA-D; the audio is in git-lfs, without which it is short text files):

    AudioWAV/1001_DFA_ANG_XX.wav        actor, sentence, emotion, level (LO, MD, HI, XX not specified)
    VideoDemographics.csv               "ActorID","Age","Sex","Race","Ethnicity"
    SentenceFilenames.csv               "Stimulus_Number","Filename": the 7,442 clips, so that missing ones have a name

One clip was published as `1040_ITH_SAD_X` and renamed later: both names are `1040_ITH_SAD_XX` here. Emotions are what
was acted. Splits are made by actor.
"""

from pathlib import Path

from harmonifuse_core.data.corpora.entries import (
    BY_SPEAKER,
    Corpus,
    Entries,
    Entry,
    LeftOut,
    Published,
    Reason,
    classify,
)  # fmt: skip
from harmonifuse_core.data.corpora.reading import audio_below, first_folder, gender, shown, table, whole

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
COUNTS = {name: 1_087 if name == "neutral" else 1_271 for name in EMOTIONS.values()}
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "", "X": ""}
SENTENCES = {
    "IEO": "it's eleven o'clock", "TIE": "that is exactly what happened", "IOM": "i'm on my way to the meeting",
    "IWW": "i wonder what this is about", "TAI": "the airplane is almost full", "MTI": "maybe tomorrow it will be cold",
    "IWL": "i would like a new alarm clock", "ITH": "i think i have a doctor's appointment",
    "DFA": "don't forget a jacket", "ITS": "i think i've seen this before", "TSI": "the surface is slick",
    "WSI": "we'll stop in a couple of minutes",
}  # fmt: skip


def entries(raw: Path, options) -> Entries:
    root = first_folder(raw, ("CREMA-D", "*"), "AudioWAV")
    if root is None:
        return
    people, broken = _rows(root / "VideoDemographics.csv", raw, ("ActorID", "Age", "Sex"))
    listed, more_broken = _rows(root / "SentenceFilenames.csv", raw, ("Filename",))
    yield from broken + more_broken
    actors = {row["ActorID"]: {"age": whole(row["Age"]), "gender": gender(row["Sex"])} for row in people}
    found = set()
    for path in audio_below(root / "AudioWAV"):
        found.add(_full(path.stem))
        yield _entry(path, shown(path, raw), actors)
    for row in listed:
        name = _full(row["Filename"])
        if name not in found:
            found.add(name)
            yield LeftOut(f"crema-{name}", Reason.MISSING, f"{row.where}: AudioWAV/{name}.wav is not there")


def _rows(path: Path, raw: Path, columns) -> tuple[list, list[LeftOut]]:
    rows = list(table(path, raw, columns)) if path.is_file() else []
    return [row for row in rows if not isinstance(row, LeftOut)], [row for row in rows if isinstance(row, LeftOut)]


def _full(name: str) -> str:
    return name + "X" if name.endswith("_X") else name


def _entry(path: Path, where: str, actors: dict[str, dict]) -> Entry | LeftOut:
    item, parts = f"crema-{_full(path.stem)}", path.stem.split("_")
    if len(parts) != 4 or not parts[0].isdigit():
        return LeftOut(item, Reason.DAMAGED, f"{where}: the name is not ACTOR_SENTENCE_EMOTION_LEVEL")
    actor, sentence, code, level = parts
    emotion = classify(code, EMOTIONS, item, where, "emotion")
    text = classify(sentence, SENTENCES, item, where, "sentence")
    intensity = classify(level, LEVELS, item, where, "level")
    for value in (emotion, text, intensity):
        if isinstance(value, LeftOut):
            return value
    return Entry(
        id=item,
        audio=path,
        text=text,
        speaker=f"crema-{actor}",
        labels={"emotion": emotion, "intensity": intensity, "sentence": sentence, "language": "en"}
        | actors.get(actor, {}),
        where=where,
    )


CORPUS = Corpus(
    name="crema_d",
    title="CREMA-D",
    licence="Open Database License 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    entries=entries,
    layout="AudioWAV/*.wav, with VideoDemographics.csv and SentenceFilenames.csv beside it",
    published=Published(sum(COUNTS.values()), by="emotion", parts=COUNTS),
    rate=16_000,
    splits=BY_SPEAKER,
    counted=("emotion", "intensity", "gender"),
)
