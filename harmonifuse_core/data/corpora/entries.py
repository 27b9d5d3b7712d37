"""What a corpus file yields: an Entry for every utterance it finds, a LeftOut for everything it cannot use."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

OFFICIAL, BY_SPEAKER, NONE = "official", "speaker", "none"


class CorpusError(ValueError):
    """A corpus cannot be prepared; the message says what is wrong with folder or request and what to do."""


class Reason(StrEnum):
    """Why an item is not in the manifest."""

    MISSING = "missing audio"
    UNREADABLE = "unreadable audio"
    ZERO_LENGTH = "zero length"
    RATE = "rate out of range"
    NO_TEXT = "empty transcript"
    DUPLICATE = "duplicate id"
    UNKNOWN_LABEL = "unknown label"
    NO_LABEL = "label absent"
    NO_ENTRY = "audio without an entry"
    OUTSIDE = "path outside the raw folder"
    COMMAND = "command instead of a file"
    PART = "part of a longer recording"
    DAMAGED = "damaged entry"
    CHOICE = "left out by choice"


@dataclass(frozen=True)
class LeftOut:
    """An item that does not come into the manifest. detail: the value at fault, and where it stands."""

    id: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Entry:
    """One utterance as the raw corpus describes it, before its audio is looked at.

    Args:
        id: unique in the manifest.
        audio: file below the raw folder, or the bytes of a file.
        text: transcript; "" where it should be and is not, None where the corpus has none.
        labels: further fields of the manifest line (emotion, gender, age, language, ...); empty ones are not written.
        where: file and line that name this utterance, for messages.
        start, seconds: part of the recording in seconds; None means to its end.
        frames: the same in frames of the file, (first, behind the last).
        claimed: seconds that the corpus states for the audio; a shorter file is reported.
        dataset: name in the manifest, the corpus's own by default.
    """

    id: str
    audio: Path | bytes
    text: str | None = None
    speaker: str = ""
    split: str = ""
    labels: Mapping[str, str | int | float] = field(default_factory=dict)
    where: str = ""
    start: float = 0.0
    seconds: float | None = None
    frames: tuple[int, int] | None = None
    claimed: float | None = None
    dataset: str = ""


@dataclass(frozen=True)
class Published:
    """What the authors say the corpus holds.

    Args:
        total: utterances, 0 where no count is published.
        by, parts: a manifest field and the published utterances for each of its values.
        optional: a part that is wholly absent was not downloaded (subsets), instead of lost (labels).
        hours: published hours for each value of `by`, for corpora that publish no counts.
        before_choice: the count includes what is left out by choice.
        note: what the count refers to, or why there is none.
    """

    total: int = 0
    by: str = ""
    parts: Mapping[str, int] = field(default_factory=dict)
    optional: bool = False
    hours: Mapping[str, float] = field(default_factory=dict)
    before_choice: bool = False
    note: str = ""

    def __str__(self):
        if self.total:
            return f"{self.total:,}"
        return f"{sum(self.hours.values()):,.0f} hours" if self.hours else "-"


@dataclass(frozen=True)
class Option:
    """An option of one corpus. kind: str, int, float, or `list` for values with commas between."""

    name: str
    help: str
    default: Any = ""
    kind: type = str
    choices: tuple[str, ...] = ()


Entries = Iterator[Entry | LeftOut]


@dataclass(frozen=True)
class Corpus:
    """One corpus, or one kind of folder that is imported.

    Args:
        name: as on the command line.
        title, licence, source: for `--list` and the report.
        entries: (raw folder or file, options by name) -> everything the corpus holds; raises CorpusError.
        layout: what the raw folder must look like, in a sentence, for error messages.
        published: what the authors count; published_for(raw, options) where it depends on these.
        rate: published sampling rate in Hz, 0 where it varies.
        needs_text: an utterance with an empty transcript is left out.
        splits: OFFICIAL (entries carry them) or BY_SPEAKER.
        counted: manifest fields whose values are counted in the report.
    """

    name: str
    title: str
    licence: str
    source: str
    entries: Callable[[Path, Mapping[str, Any]], Entries]
    layout: str
    published: Published = Published()
    published_for: Callable[[Path, Mapping[str, Any]], Published] | None = None
    rate: int = 0
    needs_text: bool = False
    splits: str = OFFICIAL
    counted: tuple[str, ...] = ("emotion", "gender", "language")
    options: tuple[Option, ...] = ()

    def defaults(self) -> dict[str, Any]:
        """Values of the options where nothing is said."""
        return {option.name: option.default for option in self.options}


def classify(code: str, classes: Mapping[str, str], item: str, where: str, what: str = "label") -> str | LeftOut:
    """A raw label code to the manifest's name for it; LeftOut where it is empty or none of `classes`."""
    if not code:
        return LeftOut(item, Reason.NO_LABEL, f"{where}: no {what}")
    if code not in classes:
        return LeftOut(item, Reason.UNKNOWN_LABEL, f"{where}: {what} {code!r} is none of {', '.join(classes)}")
    return classes[code]
