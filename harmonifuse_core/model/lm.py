"""The common face of both language models."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harmonifuse_core.config import LMConfig
from harmonifuse_core.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class LMStates:
    """States that answer: `states` L1 tensors (B, N, D), position 0 is the answer position (last of the prompt).

    `pooled`: L1 tensors (B, D), the means over speech and prompt positions (`utterance` mode), else None.
    """

    states: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...] | None


class LanguageModel(nn.Module):
    """What `HarmoniFuse` needs of an LM. B batch, T frames, U text tokens, D width, L1 = layers + 1 states.

    teacher_forced(speech (B, T, D), mask (B, T), prompts, texts, summary=None) -> LMStates with N = max text length + 1
        positions; `texts` None: no text is to follow, the task is a classification and N = 1; `summary` (B, D) is added
        to the speech token, and there is none without one
    start(speech, mask, prompt) -> (LMStates with N = 1, cache): one prompt for the whole batch
    step(tokens (B,), cache) -> LMStates with N = 1; the cache grows by one position
    logits(fused (..., D)) -> (..., V)
    cross_attention(speech (1, T, D), ids of N tokens, frames) -> (layers, H, N, frames): which of the first frames each
        position of one utterance attends to, every row sums to 1; None where the LM has no cross-attention
    """

    def __init__(self, config: LMConfig, hf_config, tokenizer: TextTokenizer):
        super().__init__()
        self.config, self.hf_config, self.tokenizer = config, hf_config, tokenizer

    def cross_attention(self, speech: Tensor, ids: list[int], frames: int) -> Tensor | None:
        return None

    @property
    def wants_pooled(self) -> bool:
        return self.config.ffn_input == "utterance"


def pad_ids(rows: list[list[int]], fill: int, device) -> Tensor:
    """(B, N) int64, filled at the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.long, device=device)


def answer_positions(states: tuple[Tensor, ...], first: list[int], count: int) -> tuple[Tensor, ...]:
    """Gather `count` positions from `first[b]` on out of each (B, N, D) state; behind the end the last one repeats."""
    device, last = states[0].device, states[0].shape[1] - 1
    index = torch.tensor(first, device=device)[:, None] + torch.arange(count, device=device)
    index = index.clamp(max=last)[..., None]
    return tuple(torch.gather(s, 1, index.expand(-1, -1, s.shape[-1])) for s in states)


def pooled_positions(states: tuple[Tensor, ...], lengths: list[int]) -> tuple[Tensor, ...]:
    """Mean (B, D) of each state over its first `lengths[b]` positions."""
    length = torch.tensor(lengths, device=states[0].device)
    keep = (torch.arange(states[0].shape[1], device=length.device) < length[:, None])[..., None]
    return tuple((s * keep).sum(1) / length[:, None] for s in states)
