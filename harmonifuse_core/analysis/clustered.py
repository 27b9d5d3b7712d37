"""Means, rates and differences with intervals by speaker, and the permutation tests of the analyses.

Shapes: `N` utterances, `G` speakers, `L1` states, `R` permutations, `P` prompts. An utterance without a speaker is its
own; where all are of one speaker, utterances are resampled and the interval's `method` says so (see `bootstrap.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmonifuse_core.bootstrap import Comparison, Interval, Units, comparison_of, interval_of, resample, units_of

EXACT_UNITS = 12  # up to 4,096 swaps are all tried instead of drawn
ROUNDING = 1e-6  # standard deviation of targets below which they are the same but for float32
RIDGE = 0.1  # penalty, as a share of the mean squared length of the centred predictors


def _sums(values: np.ndarray, weights: np.ndarray, units: Units) -> np.ndarray:
    """(G, 2): what is counted and what it is divided by, of every unit."""
    sums = np.zeros((units.count, 2))
    np.add.at(sums, units.index, np.stack([values, weights], 1))
    return sums


def _draws(values, speakers, weights, resamples: int, seed: int) -> tuple[float, np.ndarray, Units]:
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or weights.sum() <= 0:
        raise ValueError(f"{values.shape} values: give at least one finite number and a positive sum of weights")
    units = units_of(speakers, len(values))
    sums = _sums(values, weights, units)
    drawn = resample(sums, resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = drawn[:, 0] / drawn[:, 1]  # NaN where a draw holds no weight
    return float(sums[:, 0].sum() / sums[:, 1].sum()), rates, units


def rate(values, speakers: Sequence[str], weights=None, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """sum(values) / sum(weights) with a 95 % interval; `values`, `weights` (N,), weights 1 each when None (a mean)."""
    value, rates, units = _draws(values, speakers, weights, resamples, seed)
    return interval_of(value, rates, units, seed)


def rate_comparison(
    metric: str, differences, speakers: Sequence[str], weights=None, *, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """sum(differences) / sum(weights) against 0, paired by utterance; for WER errors A - B by reference words."""
    value, rates, units = _draws(differences, speakers, weights, resamples, seed)
    return comparison_of(metric, value, np.round(rates, 12), units, seed)  # rounded: a tie is no win by 1e-17


@dataclass(frozen=True)
class PermutationTest:
    """statistic: observed. p_value in (0, 1]. permutations: tried; `exact` where these are all there are. smallest: the
    least p value that so few units allow: where it is above 0.05, the test cannot reject anything."""

    statistic: float
    p_value: float
    permutations: int
    exact: bool
    units: int
    smallest: float


def swap_test(
    a: np.ndarray, b: np.ndarray, speakers: Sequence[str], *, permutations: int = 2000, seed: int = 0
) -> PermutationTest:
    """Are two conditions of the same utterances alike? `a`, `b` (N, L1) or (N,), paired by row.

    Statistic: squared length of mean(a) - mean(b). Under the null hypothesis the two conditions' names mean nothing;
    they are swapped within the utterance, for all utterances of a speaker together, since these are not independent
    (Winkler et al. 2014, whole-block exchangeability). With one speaker utterances are swapped one by one.
    """
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    if a.shape != b.shape or not len(a):
        raise ValueError(f"conditions of shape {a.shape} and {b.shape}: pair them by utterance, at least one")
    units = units_of(speakers, len(a))
    sums = np.zeros((units.count, a.shape[1]))
    np.add.at(sums, units.index, (a - b) / len(a))
    exact = units.count <= EXACT_UNITS
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**units.count)[:, None] >> np.arange(units.count)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, units.count))
    observed = float(np.square(sums.sum(0)).sum())
    drawn = np.square(signs @ sums).sum(1)
    # Rounding must not make a swap that changes nothing look smaller than what was observed.
    as_large = int(np.count_nonzero(drawn >= observed * (1 - 1e-9) - 1e-300))
    p_value = as_large / len(drawn) if exact else (as_large + 1) / (len(drawn) + 1)
    smallest = 2.0 ** (1 - units.count) if exact else 1 / (len(drawn) + 1)
    return PermutationTest(observed, p_value, len(drawn), exact, units.count, smallest)


@dataclass(frozen=True)
class Prediction:
    """r2: 1 - squared error / squared error of the left-out mean, at most 1, below 0 where the mean predicts better.
    p_value: share of permuted pairings with an R2 as high. groups: prompts, each left out once."""

    r2: float
    p_value: float
    groups: int
    permutations: int


def cross_validated_r2(
    predictors: np.ndarray, targets: np.ndarray, *, permutations: int = 2000, seed: int = 0
) -> Prediction | None:
    """Do predictors (P, D) predict targets (P, L1)? Ridge with intercept, each row left out once; row = one prompt.

    Give each prompt ONE row (its mean over utterances): rows of one prompt in both training and test would only show
    that a prompt resembles itself. The permutation test pairs whole prompts anew. None where fewer than 4 rows, or
    where the targets do not vary: there is nothing to predict.
    """
    x, y = (np.asarray(v, np.float64) for v in (predictors, targets))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"predictors {x.shape} and targets {y.shape}: give (P, D) and (P, L1)")
    count = len(x)
    centred = y - y.mean(0)
    if count < 4 or np.square(centred).mean() < ROUNDING**2:
        return None
    x = x - x.mean(0)
    kernel = x @ x.T
    if np.trace(kernel) <= 0:
        return None
    smoother = np.linalg.solve(kernel + RIDGE * np.trace(kernel) / count * np.eye(count), kernel).T + 1 / count
    left_out = (np.eye(count) - smoother) / (1 - np.diag(smoother))[:, None]  # y -> its leave-one-out errors
    total = np.square(centred).sum() * (count / (count - 1)) ** 2  # errors of the mean of the others

    def r2(order):
        return 1 - np.square(left_out @ centred[order]).sum() / total

    generator, observed = np.random.default_rng(seed), r2(np.arange(count))
    drawn = np.array([r2(generator.permutation(count)) for _ in range(permutations)])
    as_high = int(np.count_nonzero(drawn >= observed - 1e-12))
    return Prediction(float(observed), (as_high + 1) / (permutations + 1), count, permutations)
