"""Standardised features in principal axes, so that linear fits are small and almost diagonal.

design = make_design(features, train)     # (M, N, F), (N,) -> coordinates of all utterances
axes = design.centred(learn)              # some of the training utterances alone, along the same axes

Mean, deviation and axes come from the training utterances alone. A rotation changes neither a linear probe's answers
nor the length of its weights, so that its penalty stays what it was. Shapes: `M` layers, `N` utterances, `n` of them
learnt from, `F` features, `R` coordinates of the design, `A` axes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FLAT = 1e-6  # standard deviation, relative to the feature's size, below which it is constant
TINY = 1e-15
EMPTY = 1e-7  # of the largest eigenvalue: directions below it hold nothing


@dataclass(frozen=True)
class Axes:
    """Some utterances along the design's axes. z (M, n, R): centred. curvature (M, R): sums of squares along the axes.
    centre (M, 1, R): their mean in the design's coordinates."""

    z: Tensor
    curvature: Tensor
    centre: Tensor


@dataclass(frozen=True)
class Design:
    """z (M, N, R): every utterance in the principal axes of the training utterances' standardised features.
    curvature (M, R): sums of squares of the training utterances along them, which descend. train (N,) bool."""

    z: Tensor
    curvature: Tensor
    train: Tensor

    def rows(self, layers: slice) -> "Design":
        return Design(self.z[layers], self.curvature[layers], self.train)

    def centred(self, learn: np.ndarray) -> Axes:
        """`learn` (N,) bool along the design's own axes, which are almost those of so many of its utterances."""
        known = self.z[:, torch.from_numpy(np.flatnonzero(learn))]
        centre = known.mean(1, keepdim=True)
        known = known - centre
        return Axes(known, known.square().sum(1), centre)


def _eigen(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (M, n, F), centred: eigenvalues (M, A) and vectors of the smaller one of x.mT @ x, (M, F, A), and x @ x.mT,
    (M, n, A), the largest first; both are 0 where a layer has fewer than A that are not empty."""
    values, vectors = torch.linalg.eigh(x.mT @ x if x.shape[1] >= x.shape[2] else x @ x.mT)
    values, vectors = values.flip(-1), vectors.flip(-1)
    full = values > EMPTY * values[:, :1].clamp(min=TINY)
    most = max(1, int(full.sum(1).max()))
    return (values * full)[:, :most], (vectors * full[:, None])[..., :most]


def make_design(features: Tensor, train: np.ndarray) -> Design:
    """features (M, N, F) float32; train (N,) bool."""
    rows = torch.from_numpy(np.flatnonzero(train))
    mean = features[:, rows].mean(1, keepdim=True)
    std = features[:, rows].std(1, keepdim=True, unbiased=False)
    constant = std <= FLAT * features[:, rows].abs().amax(1, keepdim=True)
    x = torch.where(constant, 0.0, (features - mean) / std.masked_fill(constant, 1.0))
    known = x[:, rows]
    curvature, axes = _eigen(known)
    if len(rows) < x.shape[2]:  # fewer utterances than features: the axes lie in the span of the utterances
        axes = known.mT @ (axes / curvature.sqrt().clamp(min=TINY)[:, None])
    return Design(x @ axes, curvature, torch.from_numpy(train))
