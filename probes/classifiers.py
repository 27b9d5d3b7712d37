"""Linear probes fitted many at a time: logistic regression and ridge for all layers, targets, folds and penalties at
once.

    design = make_design(features, train)                       # (M, N, F), (N,) -> coordinates in which fits are cheap
    logits = fit_logistic(design, [Problem(codes, classes)], penalties).logits(0)

The estimators are those of scikit-learn: multinomial logistic regression with an L2 penalty on the weights and a free
intercept, `C` as there. A majorising Newton step (Bohning 1992: the Hessian of the softmax is at most half the Gram
matrix) needs one eigendecomposition a design, which all targets, folds and penalties share; Nesterov's acceleration
with restarts (O'Donoghue & Candes 2015) makes it fast. Shapes: `M` layers, `N` utterances, `F` features, `R`
coordinates, `P` problems, `C` columns (sum of the problems' classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FLAT = 1e-6  # standard deviation, relative to the feature's size, below which it is constant
EMPTY = 1e-7  # of the largest eigenvalue: directions below it hold nothing
FREE = 1e-6  # penalty of the intercept, so that a class that is never seen gets a finite one
TOLERANCE, MOST_STEPS, CHECK_EVERY = 1e-6, 200, 5


@dataclass(frozen=True)
class Design:
    """z (M, N, R + 1): every utterance in the principal axes of the training utterances' standardised features, a 1 at
    the end. curvature (M, R + 1): sums of squares of the training utterances along them; columns descend."""

    z: Tensor
    curvature: Tensor
    train: Tensor

    def rows(self, layers: slice) -> "Design":
        return Design(self.z[layers], self.curvature[layers], self.train)


@dataclass(frozen=True)
class Problem:
    """One classification. codes (N,): class of the utterances to learn from, -1 for all others."""

    codes: np.ndarray
    classes: int


def make_design(features: Tensor, train: np.ndarray) -> Design:
    """features (M, N, F) float32; train (N,) bool: mean, deviation and axes come from these utterances alone."""
    rows = torch.from_numpy(np.flatnonzero(train))
    mean = features[:, rows].mean(1, keepdim=True)
    std = features[:, rows].std(1, keepdim=True, unbiased=False)
    constant = std <= FLAT * features[:, rows].abs().amax(1, keepdim=True)
    x = torch.where(constant, 0.0, (features - mean) / std.masked_fill(constant, 1.0))
    learn = x[:, rows]
    if len(rows) >= x.shape[2]:
        values, axes = torch.linalg.eigh(learn.mT @ learn)
    else:  # fewer utterances than features: the axes lie in the span of the utterances
        values, mixes = torch.linalg.eigh(learn @ learn.mT)
        axes = learn.mT @ (mixes / values.clamp(min=1e-30).sqrt()[:, None])
    values, axes = values.flip(-1), axes.flip(-1)
    full = values > EMPTY * values[:, :1].clamp(min=1e-30)
    most = max(1, int(full.sum(1).max()))
    z = x @ (axes * full[:, None])[..., :most]
    ones = torch.ones(*z.shape[:2], 1)
    curvature = torch.cat([(values * full)[:, :most], torch.full((len(z), 1), float(len(rows)))], 1)
    return Design(torch.cat([z, ones], 2), curvature, torch.from_numpy(train))


@dataclass(frozen=True)
class Fitted:
    """weights (M, R + 1, C) of all problems side by side."""

    design: Design
    weights: Tensor
    starts: tuple[int, ...]

    def logits(self, problem: int) -> Tensor:
        """(M, N, classes) of every utterance, those it did not learn from too."""
        columns = slice(self.starts[problem], self.starts[problem + 1])
        return self.design.z @ self.weights[..., columns]


def fit_logistic(design: Design, problems: Sequence[Problem], strengths: Tensor | Sequence[float]) -> Fitted:
    """Minimise sum of cross-entropies + |W|^2 / (2 C) for every problem and layer.

    strengths: C as in scikit-learn, one a problem (P,) or (M, P). Two classes share one weight vector there and have
    one each here, which halves the penalty that the same answer costs; the penalty is doubled for them.
    """
    layers, count = len(design.z), len(problems)
    strengths = torch.as_tensor(strengths, dtype=torch.float32).expand(layers, count)
    starts = np.concatenate([[0], np.cumsum([p.classes for p in problems])])
    weights = torch.zeros(layers, design.z.shape[2], int(starts[-1]))
    order = sorted(range(count), key=lambda p: problems[p].classes)
    state = _State(design, [problems[p] for p in order], strengths[:, order])
    for step in range(MOST_STEPS):
        state.step()
        last = step == MOST_STEPS - 1
        if (step + 1) % CHECK_EVERY and not last:
            continue
        for place in state.take_converged(everything=last):
            problem = order[place.number]
            weights[..., starts[problem] : starts[problem + 1]] = place.weights
        if not state.problems:
            break
    return Fitted(design, weights, tuple(int(s) for s in starts))


@dataclass(frozen=True)
class _Done:
    number: int
    weights: Tensor


class _State:
    """The columns that still move. Problems stand in the order of their classes, so that equals form one block."""

    def __init__(self, design: Design, problems: Sequence[Problem], strengths: Tensor):
        self.z, self.design = design.z, design
        self.problems, self.numbers = list(problems), list(range(len(problems)))
        codes = torch.from_numpy(np.stack([p.codes for p in problems], 1))  # (N, P)
        self.counts = (codes >= 0).sum(0).clamp(min=1).float()
        twice = torch.tensor([2.0 if p.classes == 2 else 1.0 for p in problems])
        self.penalty = twice / (strengths * self.counts)  # (M, P), of the mean loss
        self._codes = codes
        shape = (len(self.z), self.z.shape[2], sum(p.classes for p in problems))
        self.point = torch.zeros(shape)
        self.look, self.pace = self.point.clone(), torch.ones(len(self.z), len(problems))
        self.left = torch.full_like(self.pace, torch.inf)
        self.settled, self.kept = torch.zeros_like(self.pace, dtype=torch.bool), torch.zeros(shape)
        self._layout()

    def _layout(self):
        sizes = torch.tensor([p.classes for p in self.problems])
        self.owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)  # (C,): problem of each column
        self.sizes = sizes.tolist()
        self.blocks, start, first = [], 0, 0
        for classes in sorted(set(self.sizes)):
            many = self.sizes.count(classes)
            self.blocks.append((start, first, many, classes))
            start, first = start + many * classes, first + many
        self.share = (self._codes >= 0) / self.counts  # (N, P)
        columns = torch.cat([torch.arange(k) for k in self.sizes])
        self.truth = (self._codes[:, self.owner] == columns) * self.share[:, self.owner]  # (N, C)
        bound = 0.5 * self.design.curvature[..., None] / self.counts  # (M, R + 1, P)
        penalty = self.penalty[:, None].expand_as(bound).clone()
        penalty[:, -1] = FREE
        self.bound, self.ridge = (bound + penalty)[..., self.owner], penalty[..., self.owner]

    def _per_problem(self, values: Tensor) -> Tensor:
        """(M, R + 1, C) -> (M, P): sums over each problem's own columns."""
        sums = values.new_zeros(len(values), len(self.problems))
        return sums.index_add_(1, self.owner, values.sum(1))

    def step(self):
        error = self.z @ self.look  # (M, N, C)
        for start, first, many, classes in self.blocks:
            part = error[..., start : start + many * classes]
            chances = torch.softmax(part.unflatten(-1, (many, classes)), -1)
            part.copy_((chances * self.share[:, first : first + many, None]).flatten(-2))
        error -= self.truth
        gradient = self.z.mT @ error + self.ridge * self.look
        moved = gradient / self.bound
        self.left = self._per_problem(gradient * moved)
        point = self.look - moved
        change = point - self.point
        restart = self._per_problem(gradient * change) > 0
        pace = torch.where(restart, 1.0, self.pace)
        following = (1 + (1 + 4 * pace.square()).sqrt()) / 2
        momentum = torch.where(restart, 0.0, (pace - 1) / following)
        self.look = point + momentum[:, self.owner][:, None] * change
        self.point, self.pace = point, following

    def take_converged(self, everything: bool = False) -> list[_Done]:
        """Remove the problems that all layers have solved, and give their weights: each layer's from the moment that it
        was solved, so that they do not depend on what is fitted beside it."""
        fresh = ((self.left < TOLERANCE) | everything) & ~self.settled
        self.kept = torch.where(fresh[:, self.owner][:, None], self.point, self.kept)
        self.settled |= fresh
        done = self.settled.all(0)
        if not bool(done.any()):
            return []
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        found = [
            _Done(self.numbers[p], self.kept[..., edges[p] : edges[p + 1]].clone())
            for p in torch.nonzero(done)[:, 0].tolist()
        ]
        keep = torch.nonzero(~done)[:, 0]
        columns = ~done[self.owner]
        self.problems = [self.problems[p] for p in keep.tolist()]
        self.numbers = [self.numbers[p] for p in keep.tolist()]
        if self.problems:
            self.point, self.look = self.point[..., columns], self.look[..., columns]
            self.kept, self.settled = self.kept[..., columns], self.settled[:, keep]
            self.pace, self.penalty, self.counts = self.pace[:, keep], self.penalty[:, keep], self.counts[keep]
            self._codes = self._codes[:, keep]
            self._layout()
        return found


def fit_ridge(design: Design, values: Tensor, learn: np.ndarray, penalties: Sequence[float]) -> Tensor:
    """Ridge regression in closed form, free intercept: predictions (penalties, M, N, T) for every utterance.

    values (N, T): finite where `learn` (N,) is true. Minimises sum of squares + penalty * number learnt from * |w|^2.
    """
    rows = torch.from_numpy(np.flatnonzero(learn))
    known, target = design.z[:, rows, :-1], values[rows].float()
    centre, mean = known.mean(1, keepdim=True), target.mean(0)
    known = known - centre
    gram, mixed = known.mT @ known, known.mT @ (target - mean)
    unit = torch.eye(gram.shape[1])
    found = []
    for penalty in penalties:
        weights = torch.linalg.solve(gram + penalty * len(rows) * unit, mixed)
        found.append((design.z[..., :-1] - centre) @ weights + mean)
    return torch.stack(found)
