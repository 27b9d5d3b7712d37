"""Scores and paired differences of systems that were trained with several seeds, over speakers and over seeds.

Two things are random: who speaks, and how training went. Intervals over speakers (bootstrap, see `bootstrap.py`) say
nothing about another seed; intervals over seeds (Student's t) nothing about other speakers. The test of a comparison
takes both: its variance is that of the bootstrap over speakers plus that of the mean over seeds, its degrees of freedom
are Satterthwaite's (1946). What speakers and seeds share is counted in both terms, so the test errs on the safe side
(crossed random factors: Owen 2007).

Shapes: `N` utterances, `S` seeds, `G` speakers, `C` classes, `F` counts, `R` draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from harmonifuse_core.bootstrap import LEVEL, Units, comparison_of, interval_of, resample, units_of

METRIC_SIGN = {"wer": -1, "ua": 1, "wa": 1}  # of an improvement


@dataclass(frozen=True)
class Range:
    """low, high: None where there is no interval (one seed, one utterance)."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Score:
    """value: mean over seeds. per_seed: {seed: value}. speakers, seeds: 95 %. sd: over seeds, None for one."""

    metric: str
    value: float
    per_seed: dict[int, float]
    speakers: Range
    seeds: Range
    sd: float | None
    utterances: int
    clusters: int


@dataclass(frozen=True)
class Difference:
    """What A improves on B: positive is better, for WER too.

    benefit: mean over seeds, paired by seed and utterance. both: 95 % over speakers and seeds together. p_value:
    two-sided against `shift`, over speakers and seeds; None with one seed or one speaker. p_speakers: bootstrap over
    speakers alone, against 0. value, baseline: the means of A and B on what they share.
    """

    metric: str
    benefit: float
    value: float
    baseline: float
    per_seed: dict[int, float]
    speakers: Range
    seeds: Range
    both: Range
    p_value: float | None
    p_speakers: float | None
    utterances: int
    clusters: int


@dataclass(frozen=True)
class Counts:
    """What is counted of one system. values: (N, S, F); `wer` F = (errors, words), else C supports and C hits."""

    values: np.ndarray
    utterances: tuple[str, ...]
    seeds: tuple[int, ...]
    speakers: tuple[str, ...]


def shared(frames: Sequence[pd.DataFrame]) -> tuple[list[str], list[int]]:
    """Utterances that every frame has for every shared seed, sorted; the shared seeds. Raises ValueError for none."""
    seeds = sorted(set.intersection(*(set(frame["seed"]) for frame in frames)))
    groups = [set(f.loc[f["seed"] == s, "utterance"]) for f in frames for s in seeds]
    utterances = sorted(set.intersection(*groups)) if groups else []
    if not utterances:
        raise ValueError("the systems share no utterance of a common seed: nothing to compare")
    return utterances, [int(seed) for seed in seeds]


def counts_of(rows: pd.DataFrame, metric: str, utterances: Sequence[str], seeds: Sequence[int], classes) -> Counts:
    """`rows` of one system, evaluation and task; one for each utterance and seed. classes: of all systems compared."""
    rows = rows[rows["seed"].isin(seeds) & rows["utterance"].isin(utterances)]
    if len(rows) != len(utterances) * len(seeds):
        raise ValueError(f"{len(rows)} rows for {len(utterances)} utterances x {len(seeds)} seeds: one each is needed")
    place = {name: i for i, name in enumerate(utterances)}
    n, s = rows["utterance"].map(place).to_numpy(), rows["seed"].map({x: i for i, x in enumerate(seeds)}).to_numpy()
    if metric == "wer":
        values = np.zeros((len(utterances), len(seeds), 2))
        values[n, s] = rows[["errors", "words"]].to_numpy(np.float64)
    else:
        index = {name: i for i, name in enumerate(classes)}
        c = rows["reference"].map(index).to_numpy()
        values = np.zeros((len(utterances), len(seeds), 2 * len(index)))
        values[n, s, c] = 1
        values[n, s, len(index) + c] = rows["correct"].to_numpy(np.float64)
    first = rows.drop_duplicates("utterance").set_index("utterance")["speaker"]
    return Counts(values, tuple(utterances), tuple(seeds), tuple(first.loc[list(utterances)]))


def metric_values(sums: np.ndarray, metric: str) -> np.ndarray:
    """(..., F) sums -> (...): WER, UA (macro recall over the classes present) or WA; NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "wer":
            return sums[..., 0] / sums[..., 1]
        support, hits = np.split(sums, 2, axis=-1)
        if metric == "wa":
            return hits.sum(-1) / support.sum(-1)
        return (hits / np.maximum(support, 1)).sum(-1) / (support > 0).sum(-1)


def _by_speaker(counts: Counts, units: Units) -> np.ndarray:
    sums = np.zeros((units.count, *counts.values.shape[1:]))
    np.add.at(sums, units.index, counts.values)
    return sums  # (G, S, F)


def _draws(sums: np.ndarray, metric: str, resamples: int, seed: int) -> np.ndarray:
    """(G, S, F) -> (R, S): the metric of every seed in every draw of speakers; the same draws for one `seed`."""
    drawn = resample(sums.reshape(len(sums), -1), resamples, seed)
    return metric_values(drawn.reshape(resamples, *sums.shape[1:]), metric)


def seed_range(values: Sequence[float]) -> Range:
    """Mean +- t * standard error over seeds; nothing for one seed."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Range()
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return Range(float(values.mean() - half), float(values.mean() + half))


def score(rows: pd.DataFrame, metric: str, *, resamples: int = 2000, seed: int = 0) -> Score:
    """Score of one system on one evaluation and task over all its seeds. Raises ValueError for no row."""
    utterances, seeds = shared([rows])
    counts = counts_of(rows, metric, utterances, seeds, sorted(set(rows["reference"])))
    units = units_of(counts.speakers, len(utterances))
    sums = _by_speaker(counts, units)
    values = metric_values(sums.sum(0), metric)  # (S,)
    interval = interval_of(values.mean(), _draws(sums, metric, resamples, seed).mean(1), units, seed)
    return Score(
        metric, interval.value, dict(zip(seeds, map(float, values), strict=True)), Range(interval.low, interval.high),
        seed_range(values), float(values.std(ddof=1)) if len(seeds) > 1 else None, len(utterances), units.speakers,
    )  # fmt: skip


def difference(
    rows: pd.DataFrame, baseline: pd.DataFrame, metric: str, *, shift: float = 0.0, resamples: int = 2000, seed: int = 0
) -> Difference:
    """What `rows` improves on `baseline`, on the utterances and seeds that both have. Raises ValueError for none.

    shift: the benefit that the null hypothesis names: 0, or minus the tolerated loss.
    """
    utterances, seeds = shared([rows, baseline])
    classes = sorted({*rows["reference"], *baseline["reference"]})
    own, other = (counts_of(frame, metric, utterances, seeds, classes) for frame in (rows, baseline))
    units = units_of(own.speakers, len(utterances))
    sums = [_by_speaker(counts, units) for counts in (own, other)]
    means = [metric_values(s.sum(0), metric) for s in sums]  # (S,) each
    sign = METRIC_SIGN[metric]
    per_seed = np.round(sign * (means[0] - means[1]), 12)  # rounded: a tie is no win by 1e-17
    draws = [_draws(s, metric, resamples, seed) for s in sums]
    drawn = np.round(sign * (draws[0] - draws[1]).mean(1), 12)  # (R,)
    tested = comparison_of(metric, float(per_seed.mean()), drawn, units, seed)
    both, p_value = _both(per_seed, drawn, units, shift)
    return Difference(
        metric, float(per_seed.mean()), float(means[0].mean()), float(means[1].mean()),
        dict(zip(seeds, map(float, per_seed), strict=True)), Range(tested.difference.low, tested.difference.high),
        seed_range(per_seed), both, p_value, tested.p_value, len(utterances), units.speakers,
    )  # fmt: skip


def _both(per_seed: np.ndarray, drawn: np.ndarray, units: Units, shift: float) -> tuple[Range, float | None]:
    """Interval and two-sided p value against `shift` over speakers and seeds."""
    drawn = drawn[np.isfinite(drawn)]
    if len(per_seed) < 2 or units.speakers < 2 or len(drawn) < 2:
        return Range(), None
    value = float(per_seed.mean())
    of_speakers = float(drawn.var(ddof=1)) * units.speakers / (units.speakers - 1)  # a bootstrap divides by G
    of_seeds = float(per_seed.var(ddof=1)) / len(per_seed)
    variance = of_speakers + of_seeds
    if variance == 0:  # every speaker and seed agrees
        return Range(value, value), 1.0 if value == shift else 0.0
    freedom = variance**2 / (of_speakers**2 / (units.speakers - 1) + of_seeds**2 / (len(per_seed) - 1))
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * variance**0.5
    p_value = 2 * float(stats.t.sf(abs(value - shift) / variance**0.5, freedom))
    return Range(value - half, value + half), p_value
