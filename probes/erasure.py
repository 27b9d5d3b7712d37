"""Concept erasure at a layer: LEACE in closed form (Belrose et al. 2023), and a random subspace of equal rank.

    moments.add(frames, codes)                                      # streaming, over a training part
    eraser = leace(moments)                                         # x -> x - into @ (read @ (x - mean))

After LEACE no linear classifier of single frames does better than a constant one on the data it was fitted to, and no
other affine map that achieves this changes the frames less. Shapes: `n` frames, `D` width, `K` classes, `R` rank.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

THIN = 1e-7  # of the largest variance: directions below it hold nothing to whiten
WEAK = 1e-4  # of the largest canonical covariance: directions below it do not belong to the concept


class Moments:
    """What a closed-form eraser needs of frames with classes, summed in float64 as they come."""

    def __init__(self, width: int, classes: int):
        self.outer = torch.zeros(width, width, dtype=torch.float64)
        self.sums = torch.zeros(classes, width, dtype=torch.float64)
        self.counts = torch.zeros(classes, dtype=torch.float64)

    def add(self, frames: Tensor, codes: Tensor):
        """frames (n, D), their classes (n,)."""
        frames = frames.double().cpu()
        self.outer += frames.T @ frames
        self.sums.index_add_(0, codes.cpu(), frames)
        self.counts += torch.bincount(codes.cpu(), minlength=len(self.counts))

    @property
    def mean(self) -> Tensor:
        return self.sums.sum(0) / self.counts.sum()

    @property
    def covariance(self) -> Tensor:
        return self.outer / self.counts.sum() - torch.outer(self.mean, self.mean)

    @property
    def cross(self) -> Tensor:
        """(D, K): covariance of the frames and the one-hot classes."""
        share = self.counts / self.counts.sum()
        return self.sums.T / self.counts.sum() - self.mean[:, None] * share


@dataclass(frozen=True, eq=False)
class Eraser:
    """mean (D,), into (D, R), read (R, D), float32."""

    mean: Tensor
    into: Tensor
    read: Tensor

    @property
    def rank(self) -> int:
        return self.into.shape[1]

    def __call__(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        mean, into, read = (part.to(states) for part in (self.mean, self.into, self.read))
        return states - (states - mean) @ read.T @ into.T


def _whitening(moments: Moments) -> tuple[Tensor, Tensor]:
    """W = covariance^(-1/2) and its pseudo-inverse, both (D, D)."""
    values, axes = torch.linalg.eigh(moments.covariance)
    full = values > THIN * values[-1].clamp(min=1e-30)
    root = torch.where(full, values.clamp(min=0).sqrt(), 0.0)
    inverse = torch.where(full, 1 / root.clamp(min=1e-30), 0.0)
    return axes * inverse @ axes.T, axes * root @ axes.T


def _eraser(moments: Moments, basis: Tensor, whiten: Tensor, colour: Tensor) -> Eraser:
    """basis (D, R): orthonormal, in whitened coordinates."""
    return Eraser(moments.mean.float(), (colour @ basis).float(), (basis.T @ whiten).float())


def leace(moments: Moments) -> Eraser:
    """Raises ValueError where fewer than two classes came."""
    if int((moments.counts > 0).sum()) < 2:
        raise ValueError("erasure: the training part has one class only; take more utterances or another concept")
    whiten, colour = _whitening(moments)
    left, size, _ = torch.linalg.svd(whiten @ moments.cross, full_matrices=False)
    most = int((moments.counts > 0).sum()) - 1  # the one-hot classes sum to 1
    rank = min(most, int((size > WEAK * size[0]).sum()))
    return _eraser(moments, left[:, :rank], whiten, colour)


def random_eraser(moments: Moments, rank: int, rng: np.random.Generator) -> Eraser:
    """The same map for a random subspace of the whitened space: as many directions, none of them chosen."""
    whiten, colour = _whitening(moments)
    noise = whiten @ colour @ torch.from_numpy(rng.standard_normal((len(whiten), rank)))  # within the states' span
    return _eraser(moments, torch.linalg.qr(noise)[0], whiten, colour)
