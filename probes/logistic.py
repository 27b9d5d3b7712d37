"""Many logistic regressions at once: preconditioned conjugate gradients along a path of penalties.

`descend` minimises sum of cross-entropies + |w|^2 / (2 C) with a free intercept, for every layer, problem and C of its
path: the estimator of scikit-learn's `LogisticRegression`. In the principal axes of the utterances the Hessian is
almost diagonal, mean of p (1 - p) times curvature + 1 / C, and dividing by that lets conjugate gradients (Polak &
Ribiere, restarted where they do not descend) arrive in few steps. Along a direction the step is Newton's: with a
logistic loss it descends where it moves no logit by more than `FAR`, and is damped by log(1 + v) / v where the
farthest moves by v (Bach 2010). Each problem goes on to its next C by itself, first along the way that it came, and
leaves the batch after its last.
Shapes: `M` layers, `n` utterances, `A` axes and the intercept, `P` problems, `C` columns, `S` strengths.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from probes.design import Axes

FREE = 1e-6  # penalty of the intercept, an utterance, so that a class that is never seen gets a finite one
RARE = 1e-5  # share that a class which is never seen starts from
TOLERANCE = 1e-5
SHARE = 30.0  # times tolerance: of what the loss could fall in all, so that a weak signal is followed to its end too
FLOOR = 1e-9  # nats an utterance: float32 tells no less
MOST_STEPS = 200  # for one C
FAR = 1.5  # e^v - v - 1 < v^2 below 1.79


def columns_of(classes: int) -> int:
    """Two classes share one column, the second one's logit."""
    return 1 if classes == 2 else classes


def descend(
    axes: Axes, codes: Tensor, classes: Sequence[int], strengths: Tensor, tolerance: float = TOLERANCE
) -> Tensor:  # fmt: skip
    """codes (P, n): class of each utterance; strengths (M, P, S): each problem's path of C, ascending; tolerance of
    Newton's decrement, nats an utterance: about what the loss could still fall, and a share of all that it could.

    Returns weights (M, S, C, A), the intercept last, problems side by side.
    """
    order = sorted(range(len(classes)), key=lambda p: columns_of(classes[p]))  # equals form one block
    batch = _Batch(axes, codes[order], [classes[p] for p in order], strengths[:, order])
    starts = torch.tensor([0] + [columns_of(k) for k in classes]).cumsum(0).tolist()
    found = torch.zeros(len(strengths), strengths.shape[2], starts[-1], batch.z.shape[2])
    while batch.numbers:
        batch.step()
        for number, layer, place, weights in batch.take_arrived(tolerance):
            problem = order[number]
            found[layer, place, starts[problem] : starts[problem + 1]] = weights
    return found


class _Batch:
    """The columns that still move, (M, C, A) and (M, C, n). Problems stand in the order of their columns."""

    def __init__(self, axes: Axes, codes: Tensor, classes: list[int], strengths: Tensor):
        layers, self.count, _ = axes.z.shape
        self.z = torch.cat([axes.z, torch.ones(layers, self.count, 1)], 2)
        self.curvature = torch.cat([axes.curvature, torch.full((layers, 1), float(self.count))], 1)[:, None]
        self.numbers, self.sizes = list(range(len(classes))), [columns_of(k) for k in classes]
        self._layout()
        names = torch.cat([torch.arange(k) if k > 2 else torch.ones(1, dtype=torch.long) for k in classes])
        self.truth = (codes[self.owner] == names[:, None]).float()  # (C, n)
        self.strengths, self.place = strengths, torch.zeros(strengths.shape[:2], dtype=torch.long)
        self.waited = torch.zeros_like(self.place)
        self.finished = torch.zeros_like(self.place, dtype=torch.bool)
        share = self.truth.mean(1).clamp(RARE, 1 - RARE)
        alone = torch.tensor(self.sizes)[self.owner] == 1
        self.point = torch.zeros(layers, len(share), self.z.shape[2])
        self.point[..., -1] = share.log() - torch.where(alone, (1 - share).log(), 0.0)
        self.logits = self.point[..., -1:].repeat(1, 1, self.count)
        self.chances = self._softmax(self.logits)
        self.left = self.point.clone()  # where each problem was when it went on to its C
        self.direction, self.before = torch.zeros_like(self.point), torch.zeros_like(self.point)
        self.last_energy = torch.full(self.place.shape, torch.inf)  # infinite: nothing to be conjugate to
        self.way = torch.zeros_like(self.finished)  # the direction is the way that the problem came
        self.ridge, self.inverse = self._scales(slice(None), torch.arange(len(share)))
        self._look()
        self.origin, self.hoped = self.gradient.clone(), self.energy.clone()  # where only the intercept is fitted

    def _layout(self):
        sizes = torch.tensor(self.sizes, dtype=torch.long)
        self.owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)  # (C,): problem of each column
        self.blocks, start = [], 0
        for size in sorted(set(self.sizes)):
            stop = start + self.sizes.count(size) * size
            self.blocks.append((slice(start, stop), size))
            start = stop

    def _sums(self, values: Tensor) -> Tensor:
        """(M, C) -> (M, P): over each problem's columns."""
        return values.new_zeros(len(values), len(self.numbers)).index_add_(1, self.owner, values)

    def _dot(self, one: Tensor, other: Tensor) -> Tensor:
        return self._sums(torch.linalg.vecdot(one, other))

    def _wide(self, values: Tensor) -> Tensor:
        """(M, P) -> (M, C, 1)"""
        return values[:, self.owner, None]

    def _softmax(self, logits: Tensor) -> Tensor:
        found = torch.empty_like(logits)
        for columns, size in self.blocks:
            part = logits[:, columns]
            chances = part.sigmoid() if size == 1 else part.unflatten(1, (-1, size)).softmax(2).flatten(1, 2)
            found[:, columns] = chances
        return found

    def _scales(self, layers, columns: Tensor) -> tuple[Tensor, Tensor]:
        """1 / C (..., 1), and the inverse of the Hessian's diagonal (..., A), of columns where they stand."""
        strength = self.strengths.gather(2, self.place[..., None])[..., 0]
        ridge = 1 / strength[:, self.owner, None][layers, columns]
        chances = self.chances[layers, columns]
        weight = (chances * (1 - chances)).mean(-1, keepdim=True).clamp(min=RARE)
        curvature = self.curvature if isinstance(layers, slice) else self.curvature[layers, 0]
        inverse = 1 / (weight * curvature + ridge)
        inverse[..., -1:] = 1 / ((weight + FREE) * self.count)
        return ridge, inverse

    def _look(self):
        self.error = (self.chances - self.truth) @ self.z
        self._slopes()

    def _slopes(self):
        self.gradient = torch.addcmul(self.error, self.ridge, self.point)
        self.gradient[..., -1] = self.error[..., -1] + FREE * self.count * self.point[..., -1]
        self.slope = self.gradient * self.inverse
        self.energy = self._dot(self.gradient, self.slope)

    def step(self):
        """Every column moves along its direction."""
        turn = ((self.energy - self._dot(self.before, self.slope)) / self.last_energy).clamp(min=0)
        turn = torch.where(self.way, 1.0, turn)
        fresh = self.slope * self._wide(~self.way) if bool(self.way.any()) else self.slope
        direction = self.direction.mul_(self._wide(turn)).sub_(fresh)
        fall = self._dot(direction, self.gradient)
        if bool((fall >= 0).any()):
            direction = torch.where(self._wide(fall >= 0), -self.slope, direction)
            fall = torch.where(fall >= 0, -self.energy, fall)
        move = direction @ self.z.mT  # (M, C, n)
        size = self._wide(self._size(direction, move, fall))
        self.point.addcmul_(size, direction)
        self.logits.addcmul_(size, move)
        self.chances = self._softmax(self.logits)
        self.before, self.direction = self.gradient, direction
        self.last_energy = torch.where(self.way, torch.inf, self.energy)
        self.way.fill_(False)
        self.waited += 1
        self._look()

    def _size(self, direction: Tensor, move: Tensor, fall: Tensor) -> Tensor:
        """(M, P): how far to go. fall: slope of the loss along the direction."""
        penalty = torch.linalg.vecdot(direction, direction) - direction[..., -1].square()
        bend = self._sums(penalty * self.ridge[..., 0] + FREE * self.count * direction[..., -1].square())
        weighed, means, reach = self.chances * move, [], []
        for columns, size in self.blocks:
            part = move[:, columns].unflatten(1, (-1, size))
            means.append(weighed[:, columns].unflatten(1, (-1, size)).sum(2).square().sum(2))
            width = part[:, :, 0].abs() if size == 1 else part.amax(2) - part.amin(2)
            reach.append(width.amax(2))
        bend += (self._dot(weighed, move) - torch.cat(means, 1)).clamp(min=0)
        newton = -fall / bend.clamp(min=1e-30)
        far = (newton * torch.cat(reach, 1)).clamp(min=1e-6)
        return torch.where(far < FAR, newton, newton * torch.log1p(far) / far)

    def take_arrived(self, tolerance: float) -> Iterator[tuple[int, int, int, Tensor]]:
        """(problem, layer, place on the path, weights) of all that have arrived; they go on to their next C."""
        enough = (self.hoped * SHARE).clamp(max=self.count) * tolerance
        near = self.energy < enough.clamp(min=FLOOR * self.count)
        done = (near | (self.waited >= MOST_STEPS)) & ~self.finished
        if not bool(done.any()):
            return
        edges = [0, *torch.tensor(self.sizes).cumsum(0).tolist()]
        for layer, p in torch.nonzero(done).tolist():
            yield self.numbers[p], layer, int(self.place[layer, p]), self.point[layer, edges[p] : edges[p + 1]]
        onward = done & (self.place < self.strengths.shape[2] - 1)
        self.finished |= done & ~onward
        if bool(onward.any()):
            self._go_on(onward)
        keep = ~self.finished.all(0)
        if not bool(keep.all()):
            self._drop(keep)

    def _go_on(self, onward: Tensor):
        """To the next C, first along the way from the last: for a weaker penalty the weights grow on that way."""
        self.place += onward
        self.waited[onward] = 0
        which = torch.nonzero(onward[:, self.owner], as_tuple=True)
        self.ridge[which], self.inverse[which] = self._scales(*which)
        self._slopes()
        self.hoped = self._dot(self.origin, self.origin * self.inverse)
        self.direction[which] = self.point[which] - self.left[which]
        self.left[which] = self.point[which]
        self.way |= onward

    def _drop(self, keep: Tensor):
        columns, kept = keep[self.owner], torch.nonzero(keep)[:, 0].tolist()
        self.numbers, self.sizes = [self.numbers[p] for p in kept], [self.sizes[p] for p in kept]
        for name in ("point", "logits", "chances", "left", "direction", "before", "ridge", "inverse", "error",
                     "gradient", "slope", "origin"):  # fmt: skip
            setattr(self, name, getattr(self, name)[:, columns])
        for name in ("strengths", "place", "waited", "finished", "energy", "last_energy", "way",
                     "hoped"):  # fmt: skip
            setattr(self, name, getattr(self, name)[:, keep])
        self.truth = self.truth[columns]
        self._layout()
