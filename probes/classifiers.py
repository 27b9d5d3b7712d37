"""Linear probes fitted many at a time: logistic regression and ridge for all layers, targets, folds and penalties at
once.

    design = make_design(features, train)                       # (M, N, F), (N,) -> coordinates in which fits are cheap
    fitted = fit_logistic(design, [Problem(codes, classes)], strengths)
    logits = fitted.logits(0)                                   # (M, S, N, classes), for every C of the path

The estimators are those of scikit-learn: multinomial logistic regression with an L2 penalty on the weights and a free
intercept, `C` as there. All problems of a design share its principal axes, one eigendecomposition a layer
(`logistic.descend` fits those together that learn from the same utterances). Shapes: `M` layers, `N` utterances,
`F` features, `R` coordinates of the design, `P` problems, `C` columns (one for two classes, else one a class), `S`
strengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.design import Axes, Design
from probes.logistic import TOLERANCE, columns_of, descend


@dataclass(frozen=True)
class Problem:
    """One classification. codes (N,): class of the utterances to learn from, -1 for all others."""

    codes: np.ndarray
    classes: int


@dataclass(frozen=True)
class Fitted:
    """parts: weights (M, S, columns, R + 1) of each problem in the design's coordinates, the intercept last."""

    design: Design
    problems: tuple[Problem, ...]
    parts: tuple[Tensor, ...]

    def logits(self, problem: int, rows: np.ndarray | None = None) -> Tensor:
        """(M, S, N or rows, classes); of utterances that it did not learn from too."""
        z = self.design.z if rows is None else self.design.z[:, torch.from_numpy(rows)]
        weights = self.parts[problem]
        flat = weights[..., :-1].flatten(1, 2) @ z.mT  # (M, S columns, N)
        found = (flat.unflatten(1, weights.shape[1:3]) + weights[..., -1:]).mT
        one = self.problems[problem].classes == 2
        return torch.cat([torch.zeros_like(found), found], 3) if one else found


def fit_logistic(
    design: Design, problems: Sequence[Problem], strengths: Tensor | Sequence[float], tolerance: float = TOLERANCE
) -> Fitted:  # fmt: skip
    """Minimise sum of cross-entropies + |W|^2 / (2 C) for every problem and layer, and every C of its path.

    strengths: C as in scikit-learn, ascending: one path for all (S,), or each one's own (M, P, S).
    tolerance: of Newton's decrement, in nats an utterance: about what the loss could still fall.
    """
    strengths = torch.as_tensor(strengths, dtype=torch.float32)
    strengths = strengths.expand(len(design.z), len(problems), strengths.shape[-1])
    alike: dict[bytes, list[int]] = {}  # problems that learn from the same utterances
    for number, problem in enumerate(problems):
        alike.setdefault((problem.codes >= 0).tobytes(), []).append(number)
    parts: dict[int, Tensor] = {}
    for numbers in alike.values():
        own = [problems[number] for number in numbers]
        learn = own[0].codes >= 0
        if not learn.any():  # nothing to learn from: every class is as likely
            shape = *strengths[:, 0].shape, 1, design.z.shape[2] + 1
            parts |= {n: torch.zeros(shape).repeat(1, 1, columns_of(problems[n].classes), 1) for n in numbers}
            continue
        axes = design.centred(learn)
        codes = torch.from_numpy(np.stack([p.codes[learn] for p in own]))
        weights = _in_design(axes, descend(axes, codes, [p.classes for p in own], strengths[:, numbers], tolerance))
        parts |= zip(numbers, weights.split([columns_of(p.classes) for p in own], 2), strict=True)
    return Fitted(design, tuple(problems), tuple(parts[number] for number in range(len(problems))))


def _in_design(axes: Axes, weights: Tensor) -> Tensor:
    """Weights (M, S, C, R + 1) for centred utterances as those for all: the intercept takes the centre up."""
    slopes = weights[..., :-1]
    shift = (slopes * axes.centre[:, None]).sum(-1, keepdim=True)
    return torch.cat([slopes, weights[..., -1:] - shift], -1)


def fit_ridge(design: Design, values: Tensor, learn: np.ndarray, penalties: Sequence[float]) -> Tensor:
    """Ridge regression in closed form, free intercept: predictions (penalties, M, N, T) for every utterance.

    values (N, T): finite where `learn` (N,) is true. Minimises sum of squares + penalty * number learnt from * |w|^2.
    The normal equations are solved in float64, one layer after the other: in the axes of float32 alone, a number that
    lies along small directions (the duration, in layer 0) is answered worse than scikit-learn answers it.
    """
    rows = torch.from_numpy(np.flatnonzero(learn))
    target = values[rows].double()
    mean = target.mean(0)
    found = design.z.new_empty(len(penalties), *design.z.shape[:2], target.shape[1])
    for layer, z in enumerate(design.z):
        known = z[rows].double()
        centre = known.mean(0)
        known -= centre
        wide = known.shape[0] < known.shape[1]  # fewer utterances than coordinates: one unknown an utterance
        gram = known @ known.mT if wide else known.mT @ known
        right = target - mean if wide else known.mT @ (target - mean)
        for place, penalty in enumerate(penalties):
            factor = torch.linalg.cholesky(gram + penalty * len(rows) * torch.eye(len(gram), dtype=gram.dtype))
            solved = torch.cholesky_solve(right, factor)
            weights = known.mT @ solved if wide else solved  # (R, T)
            found[place, layer] = z @ weights.float() + (mean - centre @ weights).float()
    return found
