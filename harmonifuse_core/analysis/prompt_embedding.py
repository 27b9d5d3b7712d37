"""Prompts as vectors: where an LM keeps its token embeddings, and how to run it with other ones as its prompt."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.lm import LanguageModel, LMStates


def input_embedding(lm: LanguageModel) -> nn.Embedding:
    """The table (V, D) that turns token ids into the LM's input."""
    return lm.body.get_input_embeddings()


@torch.inference_mode()
def prompt_embedding(model: HarmoniFuse, prompt: str) -> np.ndarray:
    """(D,) mean input embedding of the prompt's tokens without special ones; zeros for an empty prompt."""
    weight, ids = input_embedding(model.lm).weight, model.tokenizer.encode(prompt)
    return (weight[ids].mean(0) if ids else torch.zeros_like(weight[0])).float().cpu().numpy()


class _TeacherForced(nn.Module):
    """`functional_call` wants a module whose call is the function."""

    def __init__(self, lm: LanguageModel):
        super().__init__()
        self.lm = lm

    def forward(self, *args) -> LMStates:
        return self.lm.teacher_forced(*args)


def forced_with_embeddings(
    lm: LanguageModel, speech: Tensor, mask: Tensor, prompt: Tensor, text: Sequence[int] | None,
    summary: Tensor | None = None,
) -> LMStates:  # fmt: skip
    """`lm.teacher_forced` with prompt embeddings (N, P, D) instead of ids; one `text` for all N, None for a class.

    The prompt's vectors are appended to the embedding table for this call, each under an id of its own, so that both
    LMs run their own code, positions and speech token included, and gradients reach `prompt`.
    """
    table = input_embedding(lm)
    count, length = prompt.shape[:2]
    ids = (len(table.weight) + torch.arange(count * length)).reshape(count, length).tolist()
    wrapped = _TeacherForced(lm)
    name = next(n for n, module in wrapped.named_modules() if module is table)
    longer = torch.cat([table.weight, prompt.reshape(count * length, -1).to(table.weight)])
    texts = None if text is None else [list(text)] * count
    return torch.func.functional_call(
        wrapped, {f"{name}.weight": longer}, (speech, mask, ids, texts, summary), tie_weights=False
    )
