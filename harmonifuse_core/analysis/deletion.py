"""Does removing what attribution found hurt more than removing as much at random? (Petsiuk et al. 2018)

Parts are removed cumulatively, highest score first, and the target is read after each step; the same for random orders.
The area under the curve is small where the important parts went first.
"""

from dataclasses import dataclass

import numpy as np
import torch

from harmonifuse_core.analysis.attribution import FRAME, FRAMES_PER_SECOND, WINDOW_SECONDS, Attribution

POINTS = 5
FEW_PARTS = 8  # with fewer, random orders meet the found one too often for a verdict of no difference
ORDERS = 20
LEVEL = 0.95


@dataclass(frozen=True)
class DeletionCheck:
    """One attribution against `orders` random orders.

    removed: (S,) share of parts removed, 0 to 1. own: (S,) target; random: (orders, S). area, random_area: mean of the
    curve over its steps, the latter over orders; gap: random_area - area, positive: the found parts matter more. low,
    high: middle 95 % of (one random order's area - area). Above 0: the order beats (nearly) every random one.
    """

    removed: np.ndarray
    own: np.ndarray
    random: np.ndarray
    area: float
    random_area: float
    gap: float
    low: float
    high: float
    orders: int
    seed: int
    parts: int

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return "hurts more than random"
        if self.high < 0:
            return "hurts less than random"
        return "no different from random" if self.parts >= FEW_PARTS else "too few parts to tell"


def deletion_check(
    attribution: Attribution, orders: int = ORDERS, points: int = POINTS, seed: int = 0
) -> DeletionCheck:  # fmt: skip
    """Frames are removed in windows of `WINDOW_SECONDS` (both by score and at random), since scattered single frames
    can be filled in from their neighbours. Raises ValueError for fewer than 3 parts: there is no order to speak of."""
    scores, members = parts_of(attribution)
    count = len(scores)
    if count < 3:
        raise ValueError(f"{count} parts: a deletion check needs at least 3; take a longer clip or another method")
    rng = np.random.default_rng(seed)
    steps = np.unique(np.round(np.linspace(0, count, min(points, count) + 1)).astype(int))
    own = np.lexsort((rng.random(count), -scores))  # ties at random: by place they would favour what is said first
    ranks = [own, *(rng.permutation(count) for _ in range(orders))]
    keep = np.ones((len(ranks), len(steps), count), bool)
    for row, order in enumerate(ranks):
        for column, gone in enumerate(steps):
            keep[row, column, order[:gone]] = False
    # The first and the last step are the same for all orders, and many early ones too: each set is computed once.
    sets, place = np.unique(keep.reshape(-1, count), axis=0, return_inverse=True)
    with torch.inference_mode(False):
        values = attribution.inputs.at(torch.from_numpy(sets[:, members])).double().cpu().numpy()
    curves = values[place.ravel()].reshape(len(ranks), len(steps))
    areas = curves.mean(1)
    gaps = areas[1:] - areas[0]
    low, high = np.quantile(gaps, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return DeletionCheck(
        steps / count, curves[0], curves[1:], float(areas[0]), float(areas[1:].mean()), float(gaps.mean()), float(low),
        float(high), orders, seed, count,
    )  # fmt: skip


def parts_of(attribution: Attribution) -> tuple[np.ndarray, np.ndarray]:
    """(scores of the parts that are removed together (Q,), part of each scored group (F,)).

    Single frames are gathered to windows; anything else is a part of its own.
    """
    scores = attribution.scores
    single = attribution.over == FRAME and np.ptp(attribution.seconds[0]) <= 1 / FRAMES_PER_SECOND + 1e-9
    if not single:
        return scores, np.arange(len(scores))
    members = np.arange(len(scores)) // max(1, round(WINDOW_SECONDS * FRAMES_PER_SECOND))
    return np.bincount(members, scores), members
