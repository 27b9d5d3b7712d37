"""EMO-DB, the Berlin database of emotional speech (Burkhardt et al., Interspeech 2005): 10 German actors, 10 sentences.

Raw layout (emodb.bilderbar.info):

    wav/03a01Fa.wav     speaker 03, text a01, emotion F (Freude), version a

Emotion letters are those of the German words: W Wut (angry), L Langeweile (bored), E Ekel (disgust), A Angst
(fearful), F Freude (happy), T Trauer (sad), N neutral. The database keeps only what 80 % of the listeners recognised,
so there is no full grid: what is missing shows in the counts of each emotion. Splits are made by speaker.
"""

import re
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
from harmonifuse_core.data.corpora.reading import audio_below, shown

EMOTIONS = {
    "W": "angry", "L": "bored", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral",
}  # fmt: skip
COUNTS = {"angry": 127, "bored": 81, "disgust": 46, "fearful": 69, "happy": 71, "sad": 62, "neutral": 79}
SPEAKERS = {
    "03": ("m", 31), "08": ("f", 34), "09": ("f", 21), "10": ("m", 32), "11": ("m", 26), "12": ("m", 30),
    "13": ("f", 32), "14": ("f", 35), "15": ("m", 25), "16": ("f", 31),
}  # fmt: skip
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
NAME = re.compile(r"(\d\d)([a-z]\d\d)([A-Z])([a-z]?)")


def entries(raw: Path, options) -> Entries:
    for path in audio_below(raw):
        yield _entry(path, shown(path, raw))


def _entry(path: Path, where: str) -> Entry | LeftOut:
    item, match = f"emodb-{path.stem}", NAME.fullmatch(path.stem)
    if match is None:
        return LeftOut(item, Reason.DAMAGED, f"{where}: the name is not like 03a01Fa")
    speaker, text, letter, _ = match.groups()
    if speaker not in SPEAKERS or text not in TEXTS:
        return LeftOut(
            item, Reason.UNKNOWN_LABEL, f"{where}: speaker {speaker!r} or text {text!r} is not of the database"
        )
    emotion = classify(letter, EMOTIONS, item, where, "emotion")
    if isinstance(emotion, LeftOut):
        return emotion
    sex, age = SPEAKERS[speaker]
    labels = {"emotion": emotion, "sentence": text, "gender": sex, "age": age, "language": "de"}
    return Entry(item, path, TEXTS[text], f"emodb-{speaker}", labels=labels, where=where)


CORPUS = Corpus(
    name="emo_db",
    title="EMO-DB",
    licence="free for research, cite the paper",
    source="http://emodb.bilderbar.info",
    entries=entries,
    layout="wav/*.wav named like 03a01Fa.wav",
    published=Published(sum(COUNTS.values()), by="emotion", parts=COUNTS),
    rate=16_000,
    splits=BY_SPEAKER,
    counted=("emotion", "gender"),
)
