"""Is it the task bias or the FFN that decides? The variance of alpha's logits, split. Pure functions of arrays.

logits of layer l and utterance n = bias_l + score_nl. What layers share is taken off first, since softmax does not see
it. The mean square of what is left, over layers and utterances, is then
    bias^2 + 2 bias * mean score + mean score^2 + variance of the score between utterances (+ between a text's tokens).
Shapes: `N` utterances, `L1` layers, `G` resampled units, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmonifuse_core.bootstrap import Interval, interval_of, resample, units_of

PARTS = ("bias", "constant_score", "covariance", "between_utterances", "between_tokens")


@dataclass(frozen=True)
class LogitVariance:
    """values: mean squares of the parts, in squared logits; shares: of their sum (the covariance may be negative).

    moving: share of what varies with the input, between utterances and tokens together, with its interval.
    """

    values: dict[str, float]
    shares: dict[str, float | None]
    moving: Interval


def centred(logits: np.ndarray) -> np.ndarray:
    """(..., L1) minus its mean over layers."""
    logits = np.asarray(logits, np.float64)
    return logits - logits.mean(-1, keepdims=True)


def logit_variance(
    bias: np.ndarray, score: np.ndarray, speakers: Sequence[str], token_spread: np.ndarray | None = None, *,
    resamples: int = 2000, seed: int = 0,
) -> LogitVariance:  # fmt: skip
    """bias (L1,); score (N, L1), of a text the mean over its tokens; token_spread (N,): the variance over these tokens,
    mean over layers (zeros when None)."""
    b, s = centred(bias), centred(score)
    spread = np.zeros(len(s)) if token_spread is None else np.asarray(token_spread, np.float64)
    if s.ndim != 2 or b.shape != s.shape[1:] or len(spread) != len(s):
        raise ValueError(f"bias {b.shape}, score {s.shape}, token_spread {spread.shape}: give (L1,), (N, L1) and (N,)")
    units = units_of(speakers, len(s))
    sums = np.zeros((units.count, s.shape[1] + 3))
    squares = np.square(s).mean(1, keepdims=True)
    np.add.at(sums, units.index, np.hstack([np.ones((len(s), 1)), s, squares, spread[:, None]]))

    def split(totals: np.ndarray) -> np.ndarray:  # (R, L1 + 3) -> (R, 5)
        means = totals[:, 1:] / totals[:, :1]
        mean_score, square, tokens = means[:, :-2], means[:, -2], means[:, -1]
        constant = np.square(mean_score).mean(1)
        fixed = np.full(len(totals), np.square(b).mean())
        moving = np.clip(square - constant, 0, None)
        return np.stack([fixed, constant, 2 * (b * mean_score).mean(1), moving, tokens], 1)

    def share(parts: np.ndarray) -> np.ndarray:
        total = parts.sum(1)
        return np.divide(parts[:, 3:].sum(1), total, out=np.full(len(parts), np.nan), where=total > 1e-12)

    whole = split(sums.sum(0, keepdims=True))
    total = float(whole.sum())
    moving = interval_of(float(share(whole)[0]), share(split(resample(sums, resamples, seed))), units, seed)
    values = dict(zip(PARTS, map(float, whole[0]), strict=True))
    return LogitVariance(values, {k: v / total if total > 1e-12 else None for k, v in values.items()}, moving)
