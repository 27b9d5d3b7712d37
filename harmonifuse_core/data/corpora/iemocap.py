"""IEMOCAP (Busso et al., Language Resources and Evaluation 42, 2008): acted dyadic dialogues, 5 sessions, 10 speakers.

Raw layout (`IEMOCAP_full_release`, from its README.txt; sail.usc.edu/iemocap, on request):

    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt    `[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]`
    Session1/dialog/transcriptions/Ses01F_impro01.txt   `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.`
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

`Ses01F` says who wears the motion-capture markers; who speaks is the letter of the last part (`_F000`, `_M000`).

Classes: `four` is the map of the literature, 5,531 utterances: neutral, happy with excited, sad, angry; everything
else is left out by choice. `all` keeps every label that the annotators agreed on. Splits are by session: one session
is test, one is dev (`--test-session`, `--dev-session`); five runs give leave-one-session-out. Marks like [LAUGHTER]
are taken out of the transcripts.
"""

import re
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
    classify,
)  # fmt: skip
from harmonifuse_core.data.corpora.reading import audio_below, first_folder, lines, number, shown, visible

FOUR = {"neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry"}
EVERY = FOUR | {
    "exc": "excited", "fru": "frustrated", "fea": "fearful", "dis": "disgust", "sur": "surprised", "oth": "other",
}  # fmt: skip
NO_AGREEMENT = "xxx"
COUNTS = {
    "four": {"neutral": 1_708, "happy": 1_636, "sad": 1_084, "angry": 1_103},
    "all": {
        "neutral": 1_708, "frustrated": 1_849, "angry": 1_103, "sad": 1_084, "excited": 1_041, "happy": 595,
        "surprised": 107, "fearful": 40, "other": 3, "disgust": 2,
    },
}  # fmt: skip
TURN = re.compile(r"Ses0([1-5])[FM]_(impro|script)\w*_([FM])\w+")
EVALUATION = re.compile(r"\[[\d.]+ *- *[\d.]+\]\s+(\S+)\s+(\S*)\s*\[(.*)\]")
TRANSCRIPT = re.compile(r"(Ses\S+) \[[^\]]*\]: ?(.*)")
MARK = re.compile(r"\[[A-Z_ ]+\]")
STYLES = {"impro": "improvised", "script": "scripted"}


def entries(raw: Path, options) -> Entries:
    root = first_folder(raw, ("IEMOCAP_full_release", "*"), "Session[1-5]/dialog/EmoEvaluation")
    if root is None:
        return
    for session in visible(root.glob("Session[1-5]")):
        texts, broken = _texts(session, raw)
        yield from broken
        named = set()
        for listing in visible((session / "dialog" / "EmoEvaluation").glob("*.txt")):
            for line in lines(listing, raw):
                if isinstance(line, LeftOut):
                    yield line
                elif line.text.startswith("["):
                    item = _turn(line, session, texts, options)
                    named.add(item.id)
                    yield item
        for path in audio_below(session / "sentences" / "wav"):
            if path.stem not in named:
                yield LeftOut(path.stem, Reason.NO_LABEL, f"{shown(path, raw)} stands in no EmoEvaluation file")


def _texts(session: Path, raw: Path) -> tuple[dict[str, str], list[LeftOut]]:
    texts, broken = {}, []
    for listing in visible((session / "dialog" / "transcriptions").glob("*.txt")):
        for line in lines(listing, raw):
            if isinstance(line, LeftOut):
                broken.append(line)
            elif match := TRANSCRIPT.fullmatch(line.text):
                texts[match[1]] = MARK.sub(" ", match[2])
    return texts, broken


def _turn(line, session: Path, texts: dict[str, str], options) -> Entry | LeftOut:
    match = EVALUATION.fullmatch(line.text)
    if match is None:
        return LeftOut(line.where, Reason.DAMAGED, f"not `[start - end] turn label [v, a, d]`: {line.text[:60]!r}")
    name, code, dimensions = match.groups()
    turn = TURN.fullmatch(name)
    if turn is None:
        return LeftOut(name, Reason.DAMAGED, f"{line.where}: the turn is not named like Ses01F_impro01_F000")
    if code == NO_AGREEMENT or (options["classes"] == "four" and code in EVERY and code not in FOUR):
        why = "no agreement among the annotators" if code == NO_AGREEMENT else "outside the four classes"
        return LeftOut(name, Reason.CHOICE, f"label {code}, {why}")
    emotion = classify(code, FOUR if options["classes"] == "four" else EVERY, name, line.where)
    if isinstance(emotion, LeftOut):
        return emotion
    values = [number(value) for value in dimensions.split(",")]
    labels = dict(zip(("valence", "activation", "dominance"), values, strict=False))
    return Entry(
        id=name,
        audio=session / "sentences" / "wav" / name.rsplit("_", 1)[0] / f"{name}.wav",
        text=texts.get(name, ""),
        speaker=f"iemocap-{turn[1]}{turn[3]}",
        split=_split(turn[1], options),
        labels={
            "emotion": emotion, "style": STYLES[turn[2]], "session": turn[1], "gender": turn[3].lower(),
            "language": "en",
        } | labels,
        where=line.where,
    )  # fmt: skip


def _split(session: str, options) -> str:
    test, dev = options["test_session"], options["dev_session"]
    if test not in range(1, 6) or dev not in range(6) or test == dev:
        raise CorpusError(f"test session {test}, dev session {dev}: take two different ones of 1 to 5 (dev 0: none)")
    return {str(test): "test", str(dev): "dev"}.get(session, "train")


def published(raw: Path, options) -> Published:
    counts = COUNTS[options["classes"]]
    return Published(sum(counts.values()), by="emotion", parts=counts, note=f"classes: {options['classes']}")


CORPUS = Corpus(
    name="iemocap",
    title="IEMOCAP",
    licence="IEMOCAP release form, research only",
    source="https://sail.usc.edu/iemocap/",
    entries=entries,
    layout="Session1 to Session5 with dialog/EmoEvaluation/*.txt and sentences/wav",
    published=Published(sum(COUNTS["four"].values()), by="emotion", parts=COUNTS["four"]),
    published_for=published,
    rate=16_000,
    counted=("emotion", "style", "session", "gender"),
    options=(
        Option("classes", "four: the map of the literature; all: every agreed label", "four", str, ("four", "all")),
        Option("test_session", "session that is test", 5, int),
        Option("dev_session", "session that is dev, 0 for none", 4, int),
    ),
)
