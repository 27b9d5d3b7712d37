"""What audio may come in, and how a refusal is worded: the ground that every audio file in this wing stands on."""

import unicodedata
from dataclasses import dataclass

SAMPLE_RATE = 16_000
NAME_LENGTH = 120


class AudioError(ValueError):
    """A recording cannot be used; the message names the file as given, the reason and the remedy."""


@dataclass(frozen=True)
class AudioLimits:
    """Bounds on a recording from outside. Sizes in bytes, lengths in seconds, rates in Hz. Raises ValueError."""

    max_bytes: int = 25 * 2**20
    max_seconds: float = 600.0
    min_seconds: float = 0.1
    max_channels: int = 32
    max_rate: int = 384_000
    min_rate: int = 4_000

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds:g} must be 0 or more and below {self.max_seconds:g}")
        if not 0 < self.min_rate <= self.max_rate:
            raise ValueError(f"min_rate {self.min_rate} must be above 0 and at most max_rate {self.max_rate}")
        if self.max_bytes < 1 or self.max_channels < 1:
            raise ValueError(f"max_bytes {self.max_bytes} and max_channels {self.max_channels} must be at least 1")

    def check_header(self, rate: int, channels: int, seconds: float) -> None:
        """Refuse what a header promises, before anything of that size is allocated. Raises AudioError."""
        if not 1 <= channels <= self.max_channels:
            raise AudioError(f"{channels} channels, at most {self.max_channels}: mix it down to mono")
        if not self.min_rate <= rate <= self.max_rate:
            allowed = f"{self.min_rate} to {self.max_rate} Hz"
            raise AudioError(f"sampled at {rate} Hz, outside {allowed}: resample it to {SAMPLE_RATE} Hz")
        if seconds > self.max_seconds:
            raise AudioError(f"{seconds:.1f} s is too long, at most {self.max_seconds:g} s: cut it into parts")


def plain_name(name: str) -> str:
    """A file name as harmless text: no control, direction or surrogate characters, at most 120 characters.

    The middle goes, not the end: the extension is what a reader looks for.
    """
    clean = "".join(c for c in name if unicodedata.category(c)[0] != "C")
    if len(clean) <= NAME_LENGTH:
        return clean or "(unnamed)"
    tail = 40
    return clean[: NAME_LENGTH - tail - 1] + "…" + clean[-tail:]
