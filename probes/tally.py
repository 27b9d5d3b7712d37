"""Scores that keep what a bootstrap over speakers needs: what is right and what there is, by speaker and class.

`ua`: mean over classes of the share found right. `word_ua`: mean over words of the same for "spoken" and "not spoken".
`r2`: 1 - squared error / squared error of the training part's mean. Draws of two tallies of the same utterances under
one seed are paired. Shapes: `M` layers, `N` utterances, `G` speakers, `K` cells (classes), `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harmonifuse_core.bootstrap import Comparison, Interval, Units, comparison_of, interval_of, resample, units_of


@dataclass(frozen=True, eq=False)
class Tally:
    """right (G, M, K), total (G, K). metric: ua, word_ua or r2 (right: squared errors, total: those of the mean)."""

    metric: str
    right: np.ndarray
    total: np.ndarray
    units: Units
    resamples: int = 2000
    seed: int = 0

    @property
    def layers(self) -> int:
        return self.right.shape[1]

    def _scores(self, right: np.ndarray, total: np.ndarray) -> np.ndarray:
        """(..., M, K), (..., K) -> (..., M); classes that a draw lacks do not count in it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = right / np.where(total > 0, total, np.nan)[..., None, :]
        known = np.isfinite(rates)
        count = known.sum(-1)
        mean = np.where(known, rates, 0).sum(-1) / np.maximum(count, 1)
        mean = np.where(count > 0, mean, np.nan)
        return 1 - mean if self.metric == "r2" else mean

    @cached_property
    def scores(self) -> np.ndarray:
        """(M,)"""
        return self._scores(self.right.sum(0), self.total.sum(0))

    @cached_property
    def draws(self) -> np.ndarray:
        """(R, M)"""
        flat = np.concatenate([self.right.reshape(len(self.right), -1), self.total], 1)
        drawn = resample(flat, self.resamples, self.seed)
        split = self.right.shape[1] * self.right.shape[2]
        return self._scores(drawn[:, :split].reshape(-1, *self.right.shape[1:]), drawn[:, split:])

    def interval(self, layer: int) -> Interval:
        return interval_of(self.scores[layer], self.draws[:, layer], self.units, self.seed)

    def against(self, layer: int, other: "Tally", other_layer: int) -> Comparison:
        """This minus the other, on the same utterances."""
        value = self.scores[layer] - other.scores[other_layer]
        draws = np.round(self.draws[:, layer] - other.draws[:, other_layer], 12)
        return comparison_of(self.metric, value, draws, self.units, self.seed)


def tally_classes(labels: np.ndarray, predicted: np.ndarray, classes: int, speakers: Sequence[str], **options) -> Tally:
    """labels (N, W) with -1 where there is none, predicted (M, N, W): W problems of `classes` classes each."""
    units = units_of(speakers, len(labels))
    layers, words = len(predicted), labels.shape[1]
    right, total = np.zeros((units.count, layers, words * classes)), np.zeros((units.count, words * classes))
    for word in range(words):
        rows = np.flatnonzero(labels[:, word] >= 0)
        cells, own = word * classes + labels[rows, word], units.index[rows]
        np.add.at(total, (own, cells), 1)
        for layer in range(layers):
            np.add.at(right[:, layer], (own, cells), predicted[layer, rows, word] == labels[rows, word])
    return Tally("ua" if words == 1 else "word_ua", right, total, units, **options)


def tally_numbers(
    values: np.ndarray, predicted: np.ndarray, means: np.ndarray, speakers: Sequence[str], **options
) -> Tally:
    """values (N,) with NaN where there is none, predicted (M, N), means (N,): of each one's training part."""
    units = units_of(speakers, len(values))
    rows = np.flatnonzero(np.isfinite(values))
    right, total = np.zeros((units.count, len(predicted), 1)), np.zeros((units.count, 1))
    np.add.at(total[:, 0], units.index[rows], np.square(values - means)[rows])
    for layer, guess in enumerate(predicted):
        np.add.at(right[:, layer, 0], units.index[rows], np.square(values - guess)[rows])
    return Tally("r2", right, total, units, **options)
