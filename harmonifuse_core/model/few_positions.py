"""Cross-attention of few positions to long speech, without keys and values of its frames.

Keys and values are linear in the speech: q . (W_k s) = (W_k^T q) . s, and a weighted sum of values is W_v of the
weighted sum of the speech. To project H heads of N positions instead of T frames saves work while H N is small against
the width: five sixths for a classification, which asks the speech once from a prompt of some ten tokens.
"""

import torch
from torch import Tensor


def few(positions: int, heads: int, width: int) -> bool:
    """Whether `attend` costs at most half of projecting the frames; without gradient only."""
    return not torch.is_grad_enabled() and 2 * positions * heads <= width


def attend(query: Tensor, speech: Tensor, attention, mask: Tensor | None) -> Tensor:
    """What a Whisper `attention` block's keys and values of `speech` (B, T, D) give for `query` (B, H, N, D / H).

    mask (B, 1, 1, T): True = may be attended, or what is added to the scores. Returns (B, H, N, D / H).
    """
    batch, heads, count, size = query.shape
    keys, values = (p.weight.unflatten(0, (heads, size)) for p in (attention.k_proj, attention.v_proj))  # (H, D / H, D)
    asked = (query @ keys).flatten(1, 2)  # (B, H N, D)
    scores = (asked @ speech.mT).unflatten(1, (heads, count)) / size**0.5  # (B, H, N, T)
    if attention.k_proj.bias is not None:
        scores = scores + (query @ attention.k_proj.bias.view(heads, size, 1)) / size**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    heard = (torch.softmax(scores, -1).flatten(1, 2) @ speech).unflatten(1, (heads, count))  # (B, H, N, D)
    mixed = heard @ values.mT
    bias = attention.v_proj.bias
    return mixed if bias is None else mixed + bias.view(heads, 1, size)
