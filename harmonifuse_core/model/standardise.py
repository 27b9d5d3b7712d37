"""Zero mean and unit variance by running averages: what is constant over a corpus drops out, what varies remains."""

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
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("started", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        if self.training and len(values) > 1:
            self._track(values.detach().float())
        return (values - self.mean) * torch.rsqrt(self.variance + 1e-4)

    def _track(self, values: Tensor):
        weight = self.momentum if bool(self.started) else 1.0
        self.mean.lerp_(values.mean(0), weight)
        self.variance.lerp_((values - self.mean).square().mean(0), weight)
        self.started.fill_(1.0)
