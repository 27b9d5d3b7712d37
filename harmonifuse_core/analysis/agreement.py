"""Does a ranking of layers agree with the damage that their removal does? Pure functions of arrays.

    found = agreement(alpha, damage, speakers, norm)     # (N, L1), (N, L1), N speaker ids, (N, L1)
    found.verdict                                        # "faithful", "not faithful" or "undecided"

Shapes: `N` utterances, `L1` layers, `P` orders of the layers, `R` resamples, `G` resampled units.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

from harmonifuse_core.analysis.clustered import rate, rate_comparison
from harmonifuse_core.bootstrap import Comparison, Interval, interval_of, resample, units_of

RESOLUTION = 0.01  # of the largest magnitude in a row
FINE = 1e-6  # float32 gives no more
EXACT_ORDERS = 720  # up to 6 layers every order is tried
WEAK = 0.5  # an interval that stays below it rules out more than a weak correlation
STILL = 1e-4  # standard deviation of a weight, over layers or utterances, below which it counts as constant


def ranks(values: np.ndarray, resolution: float = RESOLUTION) -> np.ndarray:
    """(N, L1) -> (N, L1): ranks within each row from 1; neighbours closer than `resolution` of the row's largest
    magnitude are a tie and share their mean rank: differences of nothing must not rank."""
    values = np.asarray(values, np.float64)
    order = np.argsort(values, axis=-1, kind="stable")
    steps = np.diff(np.take_along_axis(values, order, -1), axis=-1, prepend=-np.inf)
    group = np.cumsum(steps > resolution * np.abs(values).max(-1, keepdims=True), axis=-1)
    groups = np.empty_like(group)
    np.put_along_axis(groups, order, group, axis=-1)
    return rankdata(groups, axis=-1)


def standard_ranks(values: np.ndarray, resolution: float = RESOLUTION) -> np.ndarray:
    """(N, L1) -> (N, L1): `ranks`, mean 0 and length 1 in each row; 0 where all are tied."""
    found = ranks(values, resolution)
    found = found - found.mean(-1, keepdims=True)
    length = np.sqrt(np.square(found).sum(-1, keepdims=True))
    return np.divide(found, length, out=np.zeros_like(found), where=length > 0)


def spearman_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, L1), (N, L1) -> (N,): Spearman's rho within each row; 0 where either is all tied, since it ranks nothing."""
    return (standard_ranks(a) * standard_ranks(b)).sum(-1)


def layer_orders(layers: int, count: int, seed: int) -> tuple[np.ndarray, bool]:
    """(P, L1) orders of the layers: all of them (True) up to `EXACT_ORDERS`, else `count` drawn ones (False)."""
    if math.factorial(layers) <= EXACT_ORDERS:
        return np.array(list(permutations(range(layers)))), True
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(layers) for _ in range(count)]), False


def permutation_p(alpha: np.ndarray, damage: np.ndarray, *, count: int = 2000, seed: int = 0) -> float:
    """Share of layer orders under which alpha (N, L1) follows damage (N, L1) at least as well as under its own.

    One order is applied to all utterances, since these share most of their layer profile: shuffling each utterance on
    its own would make any common profile look like evidence.
    """
    a, d = standard_ranks(alpha), standard_ranks(damage)
    products = a.T @ d / len(a)  # (L1, L1): rho of order p is the sum over l of products[p[l], l]
    orders, exact = layer_orders(a.shape[1], count, seed)
    drawn = products[orders, np.arange(a.shape[1])].sum(1)
    as_high = int(np.count_nonzero(drawn >= np.trace(products) - 1e-12))
    return as_high / len(drawn) if exact else (as_high + 1) / (len(drawn) + 1)


def across_utterances(
    alpha: np.ndarray, damage: np.ndarray, speakers: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """Where alpha gives a layer more than usual, does its removal do more damage than usual?

    For each layer Spearman's rho over utterances, then the mean over the layers whose alpha and damage vary. None where
    there is no such layer or fewer than 3 utterances. In the resamples, ranks stay those of the full sample.
    """
    alpha, damage = (np.asarray(x, np.float64) for x in (alpha, damage))
    moving = (alpha.std(0) >= STILL) & (damage.std(0) > 0)
    if len(alpha) < 3 or not moving.any():
        return None
    a, d = (standard_ranks(x[:, moving].T, FINE).T for x in (alpha, damage))  # (N, M)
    units, layers = units_of(speakers, len(a)), int(moving.sum())
    sums = np.zeros((units.count, 1 + 5 * layers))
    np.add.at(sums, units.index, np.hstack([np.ones((len(a), 1)), a, d, a * a, d * d, a * d]))

    def correlation(totals: np.ndarray) -> np.ndarray:  # (R, 1 + 5 M) -> (R,)
        count, parts = totals[:, :1], np.split(totals[:, 1:], 5, axis=1)
        mean_a, mean_d, aa, dd, ad = (part / count for part in parts)
        spread = np.sqrt(np.clip(aa - mean_a**2, 0, None) * np.clip(dd - mean_d**2, 0, None))
        rho = np.divide(ad - mean_a * mean_d, spread, out=np.zeros_like(ad), where=spread > 1e-15)
        return np.clip(rho, -1, 1).mean(1)

    return interval_of(
        float(correlation(sums.sum(0, keepdims=True))[0]), correlation(resample(sums, resamples, seed)), units, seed
    )


def profile_correlation(
    alpha: np.ndarray, damage: np.ndarray, speakers: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Spearman's rho over the layers of mean alpha and mean damage: L1 points, but the noise of single utterances is
    averaged away first."""
    alpha, damage = (np.asarray(x, np.float64) for x in (alpha, damage))
    units, layers = units_of(speakers, len(alpha)), alpha.shape[1]
    sums = np.zeros((units.count, 2 * layers))
    np.add.at(sums, units.index, np.hstack([alpha, damage]))

    def correlation(totals: np.ndarray) -> np.ndarray:  # sums instead of means: ranks do not see the difference
        return spearman_rows(totals[:, :layers], totals[:, layers:])

    value = float(correlation(sums.sum(0, keepdims=True))[0])
    return interval_of(value, correlation(resample(sums, resamples, seed)), units, seed)


@dataclass(frozen=True)
class Agreement:
    """How a ranking of L1 layers follows the damage over N utterances.

    within: Spearman over the layers of one utterance, mean over utterances. minus_norm: the same minus that of ranking
    by norm alone. minus_others: minus that of the other utterances' alpha on this utterance's damage, above 0 where
    alpha's movement from utterance to utterance helps. profile: `profile_correlation`. across: `across_utterances`.
    order_p: `permutation_p`.
    constant: share of utterances whose layers all tie.
    """

    within: Interval
    minus_norm: Comparison
    minus_others: Comparison | None
    profile: Interval
    across: Interval | None
    order_p: float
    constant: float
    layers: int
    utterances: int
    speakers: int

    @property
    def verdict(self) -> str:
        """`faithful` only where both intervals lie above 0. `not faithful` where alpha ranks nothing, where norm alone
        ranks better, or where the interval reaches 0 or below and stays below `WEAK`; else `undecided`."""
        norm, within = self.minus_norm.difference, self.within
        if self.constant == 1:
            return "not faithful"
        if within.low is None or norm.low is None:
            return "undecided"
        if within.low > 0:
            if norm.low > 0:
                return "faithful"
            return "not faithful" if norm.high < 0 else "undecided"
        return "not faithful" if within.high < WEAK else "undecided"


def agreement(
    alpha: np.ndarray, damage: np.ndarray, speakers: Sequence[str], norm: np.ndarray | None = None, *,
    resamples: int = 2000, seed: int = 0,
) -> Agreement:  # fmt: skip
    """All about one ranking. alpha, damage, norm: (N, L1), any scale (norm None: all equal); speakers: N ids."""
    norm = np.ones(np.shape(alpha)) if norm is None else norm
    alpha, damage, norm = (np.asarray(x, np.float64) for x in (alpha, damage, norm))
    if alpha.ndim != 2 or not (alpha.shape == damage.shape == norm.shape) or not len(alpha):
        raise ValueError(f"alpha {alpha.shape}, damage {damage.shape}, norm {norm.shape}: give (N, L1) each, N >= 1")
    if alpha.shape[1] < 3:
        raise ValueError(f"{alpha.shape[1]} layers: a rank correlation needs at least 3")
    a, d = standard_ranks(alpha), standard_ranks(damage)
    own, by_norm = (a * d).sum(-1), spearman_rows(norm, damage)
    options = {"resamples": resamples, "seed": seed}
    others = None
    if len(a) > 1:
        strangers = ((a.sum(0) - a) / (len(a) - 1) * d).sum(-1)  # mean over all other utterances' alpha
        others = rate_comparison("rho", own - strangers, speakers, **options)
    return Agreement(
        within=rate(own, speakers, **options),
        minus_norm=rate_comparison("rho", own - by_norm, speakers, **options),
        minus_others=others,
        profile=profile_correlation(alpha, damage, speakers, **options),
        across=across_utterances(alpha, damage, speakers, **options),
        order_p=permutation_p(alpha, damage, count=resamples, seed=seed),
        constant=float((~a.any(-1)).mean()),
        layers=alpha.shape[1],
        utterances=len(alpha),
        speakers=len(set(speakers)),
    )


def descending(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(..., L1) -> (..., L1): layers by falling weight; ties are ordered at random, not by their number."""
    noise = generator.random(np.shape(weights))
    return np.lexsort((noise, -ranks(weights, FINE)), axis=-1)


def first_layers(order: np.ndarray, count: int) -> np.ndarray:
    """(N, L1) orders -> (N, L1) bool: the `count` first layers of each."""
    chosen = np.zeros(order.shape, bool)
    np.put_along_axis(chosen, order[:, :count], True, axis=-1)
    return chosen


def curve_points(layers: int, most: int = 8) -> list[int]:
    """How many layers are taken away or put in: 1 to L1 - 1, at most `most` points, evenly spread."""
    return sorted(set(np.round(np.linspace(1, layers - 1, min(most, layers - 1))).astype(int).tolist()))


def area(changes: np.ndarray, points: Sequence[int]) -> np.ndarray:
    """Trapezoidal area under (N, points) changes over the share of the way from the first point to the last: (N,).

    With evenly spread points a weighted mean of the curve; of one point, its value.
    """
    changes, points = np.asarray(changes, np.float64), np.asarray(points, np.float64)
    if len(points) == 1:
        return changes[:, 0]
    steps = np.diff(points) / (points[-1] - points[0])
    return ((changes[:, 1:] + changes[:, :-1]) / 2 * steps).sum(1)
