"""What an edited prompt changed, in numbers. Pure: two answers of one task in, frozen dataclasses out."""

import difflib
from dataclasses import dataclass

import numpy as np

from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput
from harmonifuse_core.routing import jensen_shannon

SAME, REMOVED, ADDED = "same", "removed", "added"
MARKS = {SAME: "", REMOVED: "−", ADDED: "+"}


@dataclass(frozen=True)
class WeightChange:
    """Of one fusion, edited minus default. difference: (L1,). divergence: Jensen-Shannon in bits, 0 to 1."""

    stage: str
    difference: np.ndarray
    divergence: float
    largest: float
    layer: int


@dataclass(frozen=True)
class PromptChange:
    """words: (kind, word) of a transcript, empty for a class task. probabilities: {class: edited - default}."""

    encoder: WeightChange
    lm: WeightChange
    words: tuple[tuple[str, str], ...] = ()
    probabilities: dict[str, float] | None = None

    @property
    def text_changed(self) -> bool:
        return any(kind != SAME for kind, _ in self.words)


def word_difference(before: str, after: str) -> tuple[tuple[str, str], ...]:
    """Words of `before` and `after` in reading order, each same, removed or added."""
    old, new = before.split(), after.split()
    steps: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind == "equal":
            steps += [(SAME, word) for word in old[a:b]]
            continue
        steps += [(REMOVED, word) for word in old[a:b]] + [(ADDED, word) for word in new[c:d]]
    return tuple(steps)


def weight_change(stage: str, before: np.ndarray, after: np.ndarray) -> WeightChange:
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    layer = int(np.abs(difference).argmax())
    divergence = float(jensen_shannon(np.asarray(before, np.float64), np.asarray(after, np.float64)))
    return WeightChange(stage, difference, divergence, float(np.abs(difference).max()), layer)


def compare(default: HarmoniFuseOutput, edited: HarmoniFuseOutput) -> PromptChange:
    """Edited prompt against the default one, same task, same audio."""
    if default.task != edited.task:
        raise ValueError(f"answers of {default.task!r} and {edited.task!r} do not compare: give one task")
    words = word_difference(default.text, edited.text) if default.text is not None else ()
    changes = None
    if default.probabilities is not None:
        changes = {label: edited.probabilities[label] - p for label, p in default.probabilities.items()}
    return PromptChange(
        weight_change("encoder", default.encoder.alpha, edited.encoder.alpha),
        weight_change("lm", default.lm.alpha, edited.lm.alpha),
        words, changes,
    )  # fmt: skip
