"""One-hidden-layer probes, all layers and targets of a fold trained side by side.

They read the first `AXES` principal components of the training utterances, scaled together to a mean variance of 1:
scaled apart (whitened), the last ones are noise that a hidden layer learns by heart. Adam, full batch; the number of
steps is chosen on inner speakers, then the probe is trained anew on the whole training part for as many steps.
Shapes: `M` layers, `N` utterances, `P` problems, `H` hidden units, `K` outputs (of the largest problem).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from probes.design import Design

AXES, HIDDEN, STEPS, EVERY = 128, 32, 150, 10
RATE, DECAY = 3e-3, 1e-2


@dataclass(frozen=True)
class Task:
    """One problem. targets (N,): class codes (-1: none), or standardised values (NaN: none) where `classes` is 1."""

    targets: np.ndarray
    classes: int

    @property
    def known(self) -> np.ndarray:
        return np.isfinite(self.targets) & ((self.targets >= 0) | (self.classes == 1))


def fit_perceptrons(design: Design, tasks: Sequence[Task], choose: np.ndarray, seed: int = 0) -> list[Tensor]:
    """Outputs (M, N, classes) for every task. choose (N,) bool: training utterances that choose the number of steps."""
    x = _scaled(design)
    learn = design.train.numpy()
    checked = torch.from_numpy(np.flatnonzero(learn & choose))
    early = _train(x, tasks, learn & ~choose, seed)
    best = torch.stack([_losses(output[:, checked], tasks, checked) for output in early]).argmin(0)  # (M, P)
    chosen = None
    for check, output in enumerate(_train(x, tasks, learn, seed)):
        chosen = output if chosen is None else torch.where((best == check)[:, None, :, None], output, chosen)
    return [chosen[:, :, p, : task.classes] for p, task in enumerate(tasks)]


def _scaled(design: Design) -> Tensor:
    """(M, N, A): a mean variance of 1 over the training utterances and the first axes, which keep their proportions."""
    most = min(AXES, design.z.shape[2])
    variance = design.curvature[:, :most].mean(1) / design.train.sum()
    return design.z[..., :most] * variance.clamp(min=1e-8).rsqrt()[:, None, None]


def _train(x: Tensor, tasks: Sequence[Task], rows: np.ndarray, seed: int) -> Iterator[Tensor]:
    """Yields outputs (M, N, P, K) of all utterances after every `EVERY` steps."""
    layers, axes, count = len(x), x.shape[2], len(tasks)
    width = max(task.classes for task in tasks)
    rng = torch.Generator().manual_seed(seed)
    first = torch.randn(layers, axes, count * HIDDEN, generator=rng) * axes**-0.5
    second = torch.randn(layers, count, HIDDEN, width, generator=rng) * HIDDEN**-0.5
    zeros = torch.zeros(layers, 1, count * HIDDEN), torch.zeros(layers, 1, count, width)
    parameters = [nn.Parameter(p) for p in (first, second, *zeros)]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)

    def outputs(x: Tensor) -> Tensor:
        first, second, bias, shift = parameters
        hidden = torch.relu(x @ first + bias).unflatten(-1, (count, HIDDEN))  # (M, N, P, H)
        return torch.einsum("mnph,mphk->mnpk", hidden, second) + shift

    places = torch.from_numpy(np.flatnonzero(rows))
    learnt = x[:, places]
    for step in range(1, STEPS + 1):
        loss = _losses(outputs(learnt), tasks, places).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                found = outputs(x)
            yield found


def _losses(outputs: Tensor, tasks: Sequence[Task], places: Tensor) -> Tensor:
    """outputs (M, n, P, K) of the utterances at `places` (n,) -> (M, P): mean loss of those that have the label."""
    found = []
    for number, task in enumerate(tasks):
        known = torch.from_numpy(task.known)[places]
        output, truth = outputs[:, known, number, : task.classes], torch.from_numpy(task.targets)[places][known]
        if not len(truth):
            found.append(outputs.new_zeros(len(outputs)))
        elif task.classes == 1:
            found.append((output[..., 0] - truth.float()).square().mean(1))
        else:
            chances = torch.log_softmax(output, -1)
            index = truth.long()[None, :, None].expand(len(output), -1, 1)
            found.append(-chances.gather(2, index)[..., 0].mean(1))
    return torch.stack(found, 1)
