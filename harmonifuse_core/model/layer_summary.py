"""What each encoder layer says over a whole utterance, for the speech token of a classification.

The gate's sum mixes the layers before the speech token takes its mean and deviation. Here each layer's own mean and
deviation are read side by side, weighed by the same alpha, so that what one layer says is not hidden by another.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harmonifuse_core.model.standardise import RunningStandardise

DROPOUT = 0.5  # of thousands of statistics a few hundred utterances need few


class LayerSummary(nn.Module):
    """Mean and deviation over time of L1 states of width D -> one LM embedding, zero at first.

    A layer whose alpha is 0 brings nothing, as if its statistics were those of the average utterance.
    """

    def __init__(self, states: int, speech_width: int, hidden: int, width: int):
        super().__init__()
        self.standardise = RunningStandardise(states, 2 * speech_width)
        self.inner = nn.Linear(states * 2 * speech_width, hidden)
        self.output = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.zeros_(self.output.weight)  # starts as the plain token

    def statistics(self, states: Iterable[Tensor], mask: Tensor) -> Tensor:
        """Means and standard deviations of L1 states (B, T, D) where `mask` (B, T) is True: (B, L1, 2 D)."""
        weight = (mask / mask.sum(1, keepdim=True))[:, None]  # (B, 1, T)
        found = []
        for state in states:
            weight = weight.to(state.dtype)
            mean = weight @ state
            variance = weight @ (state - mean).square()
            found.append(torch.cat([mean, (variance + 1e-5).sqrt()], -1)[:, 0])
        return torch.stack(found, 1)

    def weigh(self, statistics: Tensor, alpha: Tensor) -> Tensor:
        """The standardised statistics (B, L1, 2 D), each layer's times its alpha (B, L1) over the even one, 1 / L1."""
        return self.standardise(statistics) * (alpha * alpha.shape[-1])[..., None]

    def forward(self, weighed: Tensor) -> Tensor:
        """(B, L1, 2 D) from `weigh` -> (B, width)."""
        hidden = nn.functional.gelu(self.inner(self.dropout(weighed.flatten(1))))
        return self.output(self.dropout(hidden))
