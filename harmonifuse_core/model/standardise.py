"""Zero mean and unit variance by running averages: what is constant over a corpus drops out, what varies remains."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningStandardise(nn.Module):
    """(B, *shape) -> the same, standardised elementwise over the utterances seen in training.

    Running averages, not the batch's own statistics, are used in training too, so that a batch of one works. In eval
    mode they stand still, and an utterance's result does not depend on its neighbours. No gradient passes through.
    """

    def __init__(self, *shape: int, momentum: float = 0.1):
        super().__init__()
        self.momentum = momentum
        self.still = False  # True: training does not move the averages either
        self.total: Callable[[Tensor], Tensor] | None = None  # sum over processes, where several share a batch
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("started", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        tracks = self.training and not self.still
        if tracks and self.total is not None:
            self._track_shared(values.detach().float())
        elif tracks and len(values) > 1:
            self._track(values.detach().float())
        return (values - self.mean) * torch.rsqrt(self.variance + 1e-4)

    def _track(self, values: Tensor):
        weight = self.momentum if bool(self.started) else 1.0
        self.mean.lerp_(values.mean(0), weight)
        self.variance.lerp_((values - self.mean).square().mean(0), weight)
        self.started.fill_(1.0)

    def _track_shared(self, values: Tensor):
        """As `_track`, over the utterances of all processes; this one may hold one only, or none that counts."""
        summed = self.total(torch.cat([values.sum(0).flatten(), values.new_full((1,), len(values))]))
        count, weight = summed[-1], self.momentum if bool(self.started) else 1.0
        if float(count) < 2:
            return
        self.mean.lerp_(summed[:-1].view_as(self.mean) / count, weight)
        squares = self.total((values - self.mean).square().sum(0))
        self.variance.lerp_(squares / count, weight)
        self.started.fill_(1.0)
