"""LoRA (Hu et al. 2022) on the feed-forward layers of an encoder's blocks: W x + (alpha / R) B A x, W frozen.

The attention's projections are left alone: WavLM computes them inside of a function that reads the weights only, so
that a change wrapped round q, k or v would be without effect there, silently.
"""

import torch
from torch import Tensor, nn

FEED_FORWARD = ("fc1", "fc2", "feed_forward.intermediate_dense", "feed_forward.output_dense")
ALPHA = 16.0  # scale of the change: at rank R it is ALPHA / R, so that a rate suits every rank


class LowRankLinear(nn.Linear):
    """A linear layer (..., I) -> (..., O) with a change: lora_down (R, I), lora_up (O, R), which starts at 0."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=5**0.5)
        self.scale = ALPHA / rank

    def forward(self, values: Tensor) -> Tensor:
        change = nn.functional.linear(nn.functional.linear(values, self.lora_down), self.lora_up)
        return super().forward(values) + self.scale * change


def add_low_rank(blocks: nn.ModuleList, rank: int):
    """Replace the feed-forward layers of every block. Raises ValueError where a block has none that are known."""
    for block in blocks:
        found = [path for path in FEED_FORWARD if _has(block, path)]
        if len(found) < 2:
            raise ValueError(
                f"encoder.finetune lora-{rank}: {type(block).__name__} has none of {', '.join(FEED_FORWARD)}; use top-K"
            )
        for path in found:
            parent, _, name = path.rpartition(".")
            owner = block.get_submodule(parent)
            setattr(owner, name, LowRankLinear(getattr(owner, name), rank))


def _has(block: nn.Module, path: str) -> bool:
    try:
        return isinstance(block.get_submodule(path), nn.Linear)
    except AttributeError:
        return False
