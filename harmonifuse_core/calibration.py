"""Are the probabilities honest? Expected calibration error, reliability bins, log loss and temperature scaling.

Arrays are numpy or anything `numpy.asarray` takes (a torch tensor must be detached and on the CPU).
Shapes: `N` utterances, `C` classes. Every function raises ValueError that names the value and the remedy.

Sources: Naeini et al. 2015 (ECE with equal-width bins), Guo et al. 2017, "On Calibration of Modern Neural Networks"
(top-label confidence, 15 bins, temperature scaling).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

DEFAULT_BINS = 15
SUM_TOLERANCE = 1e-3  # float32 softmax passes by far, a bfloat16 softmax (error about 4e-3) or raw logits do not
TEMPERATURE_BOUNDS = (0.05, 20.0)  # a fit that returns one of these found no optimum: see `fit_temperature`


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram: predictions whose confidence lies in (low, high].

    Args:
        low, high: edges of the bin, in [0, 1]; the first bin also holds confidence 0.
        count: utterances in the bin.
        confidence: their mean top-label probability; None in an empty bin.
        accuracy: the fraction of them that is right; None in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def validated_reference(reference_index: ArrayLike, classes: int) -> np.ndarray:
    """Reference class indices, (N,) -> (N,) int64, or ValueError: empty, not 1-D, not integer, outside [0, classes)."""
    reference = np.asarray(reference_index)
    if reference.ndim != 1 or reference.size == 0:
        raise ValueError(f"class indices have shape {reference.shape}; give one index an utterance, shape (N,), N >= 1")
    if reference.dtype.kind not in "iu":
        raise ValueError(f"class indices have dtype {reference.dtype}; give integers (positions in the label list)")
    wrong = np.flatnonzero((reference < 0) | (reference >= classes))
    if wrong.size:
        raise ValueError(
            f"class index {reference[wrong[0]]} at position {wrong[0]} is outside [0, {classes}); "
            "leave out utterances without a label, and check the label list"
        )
    return reference.astype(np.int64)


def _validated_scores(scores: ArrayLike, name: str) -> np.ndarray:
    """(N, C) -> (N, C) float64, or ValueError: wrong rank, empty, NaN or infinite."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} have shape {array.shape}; give one row an utterance, shape (N, C), N and C >= 1")
    wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"{name} of row {wrong[0]} are not finite: {array[wrong[0]].tolist()}; "
            "check the model's output for NaN, and leave masked classes out"
        )
    return array


def _check_lengths(reference: np.ndarray, scores: np.ndarray, name: str) -> None:
    if len(reference) != len(scores):
        raise ValueError(f"{len(reference)} references but {len(scores)} rows of {name}; give one row a reference")


def validated_probabilities(reference_index: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check a pair of references (N,) and probabilities (N, C); return them as int64 and float64.

    Raises:
        ValueError: empty, lengths differ, NaN, a negative probability, a row that does not sum to 1 (within
            `SUM_TOLERANCE`), or an index outside the C classes.
    """
    array = _validated_scores(probabilities, "probabilities")
    reference = validated_reference(reference_index, array.shape[1])
    _check_lengths(reference, array, "probabilities")
    sums = array.sum(axis=1)
    wrong = np.flatnonzero((np.abs(sums - 1) > SUM_TOLERANCE) | (array < 0).any(axis=1))
    if wrong.size:
        raise ValueError(
            f"row {wrong[0]} is not a distribution: {array[wrong[0]].tolist()} sums to {sums[wrong[0]]:.6g}; "
            "apply a softmax in float32 to the logits first"
        )
    return reference, array


def reliability_bins(
    reference_index: ArrayLike, probabilities: ArrayLike, *, bins: int = DEFAULT_BINS
) -> tuple[ReliabilityBin, ...]:
    """Equal-width bins of the top-label confidence, for a reliability diagram.

    Args:
        reference_index: (N,) reference classes; probabilities: (N, C) rows that sum to 1; bins: how many, >= 1.

    Returns:
        `bins` values in the order of confidence; empty bins are there, with None for both means.
    """
    if bins < 1:
        raise ValueError(f"bins {bins}: give at least 1 ({DEFAULT_BINS} is usual)")
    reference, array = validated_probabilities(reference_index, probabilities)
    confidence, right = array.max(axis=1), array.argmax(axis=1) == reference
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Right-closed, as in Guo et al.; the clip takes confidence 0 and a float32 softmax of 1.0000001 in.
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    confidence_sum = np.bincount(which, weights=confidence, minlength=bins)
    right_sum = np.bincount(which, weights=right, minlength=bins)
    return tuple(
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            count=int(count[k]),
            confidence=float(confidence_sum[k] / count[k]) if count[k] else None,
            accuracy=float(right_sum[k] / count[k]) if count[k] else None,
        )
        for k in range(bins)
    )


def expected_calibration_error(
    reference_index: ArrayLike, probabilities: ArrayLike, *, bins: int = DEFAULT_BINS
) -> float:
    """Mean of |accuracy - confidence| over the bins, weighted by their counts; in [0, 1], 0 is calibrated.

    Biased upwards on few utterances: even perfect probabilities give roughly sqrt(bins / N) / 3. Compare models only
    on the same utterances, and arguments and errors as in `reliability_bins`.
    """
    filled = [b for b in reliability_bins(reference_index, probabilities, bins=bins) if b.count]
    return sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / sum(b.count for b in filled)


def log_loss(reference_index: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood of the references, in nats.

    Probabilities are clipped to float64's epsilon, so one certain and wrong answer costs 36 nats and not infinity.
    """
    reference, array = validated_probabilities(reference_index, probabilities)
    chosen = array[np.arange(len(reference)), reference]
    return float(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)).mean())


def fit_temperature(logits: ArrayLike, reference: ArrayLike) -> float:
    """The temperature T > 0 for which softmax(logits / T) has the least log loss (Guo et al. 2017).

    Fit on validation data, never on the utterances that are reported. T leaves the predicted class as it is.

    Args:
        logits: (N, C), finite, before any softmax (log-probabilities do as well, probabilities do not).
        reference: (N,) reference classes.

    Returns:
        T within `TEMPERATURE_BOUNDS`. Exactly a bound means that no optimum exists inside: the lower one where
        every utterance is right (any sharpening helps), the upper one where the logits carry nothing.
    """
    array = _validated_scores(logits, "logits")
    index = validated_reference(reference, array.shape[1])
    _check_lengths(index, array, "logits")
    rows = np.arange(len(index))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(array / np.exp(log_temperature), axis=1)[rows, index].mean())

    # The loss is convex in 1/T, hence has one minimum in log T too, where halving and doubling are steps of one size.
    bounds = tuple(np.log(TEMPERATURE_BOUNDS))
    found = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    # The search only comes near its ends, and stops early where the loss is flat (0 to machine precision).
    for temperature in reversed(TEMPERATURE_BOUNDS):
        if loss(np.log(temperature)) <= loss(found) + 1e-12:
            return temperature
    return float(np.exp(found))
