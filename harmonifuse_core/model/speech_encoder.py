"""The common face of all speech encoders: waveforms -> all states. Frozen means frozen: eval mode, no gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harmonifuse_core.config import AugmentConfig, EncoderConfig
from harmonifuse_core.model.low_rank import add_low_rank
from harmonifuse_core.model.silence import Silence


@dataclass(frozen=True)
class EncoderStates:
    """`states`: L+1 tensors (B, T, D), state 0 before the first block; `mask` (B, T): True = speech."""

    states: tuple[Tensor, ...]
    mask: Tensor

    @property
    def frames(self) -> Tensor:
        return self.mask.sum(1)


class SpeechEncoder(nn.Module, ABC):
    """Common face of the encoders: `forward(waveforms (B, S), lengths (B,)) -> EncoderStates`.

    State 0 is what enters the first block, state k the output of block k, before any final layer norm. `cache` may
    stand in for the computation of a frozen encoder (`inference/state_cache.py`).
    """

    def __init__(self, config: EncoderConfig, hf_config, body: nn.Module, blocks: nn.ModuleList):
        super().__init__()
        self.config, self.hf_config, self.body = config, hf_config, body
        self.width, self.layers = hf_config.hidden_size, len(blocks)
        self.trainable_from = self._freeze(config.finetune, blocks)
        self.silence: Silence | None = None  # Whisper's, see there
        self.cache: Callable[..., EncoderStates] | None = None

    def _freeze(self, finetune: str, blocks) -> int:
        """Set `requires_grad`; return the first block that learns (L: none, -1: the front end too)."""
        if finetune == "all":
            return -1
        self.body.requires_grad_(False)
        if finetune == "frozen":
            return self.layers
        if finetune.startswith("lora-"):
            add_low_rank(blocks, int(finetune.removeprefix("lora-")))
            return 0
        top = int(finetune.removeprefix("top-"))
        if top > self.layers:
            raise ValueError(
                f"encoder.finetune is {finetune!r}, but {self.config.name} has {self.layers} blocks; use all"
            )
        for block in blocks[-top:]:
            block.requires_grad_(True)
        return self.layers - top

    def train(self, mode: bool = True):
        super().train(mode)
        if self.trainable_from >= self.layers:
            self.body.eval()
        return self

    def forward(self, waveforms: Tensor, lengths: Tensor, augment: AugmentConfig | None = None) -> EncoderStates:
        """`augment` masks spans of the input in training. Raises ValueError on clips that are too short or too long."""
        augment = augment if self.training else None
        if self.cache is not None:
            return self.cache(self, waveforms, lengths, augment)
        return self.compute(waveforms, lengths, augment)

    def compute(self, waveforms: Tensor, lengths: Tensor, augment: AugmentConfig | None = None) -> EncoderStates:
        """As `forward`, past any cache."""
        frozen = self.trainable_from >= self.layers
        with torch.no_grad() if frozen else nullcontext():
            return self._encode(waveforms, lengths, augment)

    @abstractmethod
    def count_frames(self, lengths: Tensor) -> Tensor:
        """Frames (B,) that clips of `lengths` (B,) samples give."""

    def _run(self, block, *args):
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)
