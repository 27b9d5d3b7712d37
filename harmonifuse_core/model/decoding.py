"""Text token by token, with a cache, for a whole batch; alpha of every token comes along."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.model.fusion import Fused
from harmonifuse_core.model.speech_encoder import EncoderStates

LOOP_PERIODS, LOOP_TOKENS = 3, 12  # a phrase that stands three times in a row over at least 12 tokens is a loop


@dataclass(frozen=True)
class Generated:
    """One utterance's tokens (end token excluded), their log probabilities (U,), and LM weights (max(U, 1), L1) each.

    An empty transcript keeps the weights of the position that chose to end.
    """

    tokens: list[int]
    logprobs: np.ndarray
    alpha: np.ndarray
    bias: np.ndarray
    score: np.ndarray
    share: np.ndarray
    truncated: bool


class Forbidden:
    """Sets the logits (B, V) of special tokens, and of places that the tokenizer has no token for, to -inf in place."""

    def __init__(self, tokenizer):
        ids = sorted(tokenizer.special_ids())
        self.behind = len(tokenizer)
        while ids and ids[-1] == self.behind - 1:  # those at the end are one slice, which costs nothing
            self.behind = ids.pop()
        self.others = ids

    def __call__(self, logits: Tensor) -> Tensor:
        logits[:, self.behind :] = -torch.inf
        if self.others:
            logits[:, self.others] = -torch.inf
        return logits


def token_limit(seconds: float) -> int:
    """Most tokens that speech of this length may give: fast speech has about 6 a second with punctuation."""
    return int(12 + 8 * seconds)


def repeats(tokens: list[int]) -> int:
    """Length of the tail to drop if `tokens` end in a loop, else 0: the loop's first round stays."""
    for period in range(1, len(tokens) // LOOP_PERIODS + 1):
        rounds = max(LOOP_PERIODS, -(-LOOP_TOKENS // period))
        span = period * rounds
        if span <= len(tokens) and tokens[-span:-period] == tokens[-span + period :]:
            return span - period
    return 0


@torch.inference_mode()
def greedy(
    model, states: EncoderStates, encoder_fused: Fused, task: str, prompt: str, lm_alpha: Tensor | None = None
) -> list[Generated]:
    """Greedy decoding of B utterances under one prompt.

    `encoder_fused` comes from `model.fuse_encoder(states, task)`; `lm_alpha` (L1,) or (B, 1, L1) overrides the LM's
    weights. Finished utterances leave the batch. Special tokens are never produced.
    """
    prompt_ids = model.tokenizer.prompt_ids(prompt)
    forbid, end = Forbidden(model.tokenizer), model.tokenizer.end
    output, cache = model.lm.start(encoder_fused.states, states.mask, prompt_ids)
    seconds = states.frames.tolist()
    limits = [token_limit(frames / 50) for frames in seconds]
    alive = list(range(len(limits)))
    tokens: list[list[int]] = [[] for _ in alive]
    steps: list[list[tuple]] = [[] for _ in alive]
    truncated = [False] * len(alive)
    while alive:
        override = lm_alpha[alive] if lm_alpha is not None and lm_alpha.ndim == 3 else lm_alpha
        fused = model.fuse_lm(output, task, override)
        logits = model.lm.logits(fused.states[:, 0]).float()  # (B', V)
        best, chosen = torch.log_softmax(forbid(logits), -1).max(-1)
        logprob = best.tolist()
        weights = torch.stack([fused.alpha, fused.bias, fused.score, fused.share])[:, :, 0].float().cpu().numpy()
        keep = []
        for row, (utterance, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
            steps[utterance].append((logprob[row], weights[:, row]))
            if token == end:
                continue
            tokens[utterance].append(token)
            if drop := repeats(tokens[utterance]):
                del tokens[utterance][-drop:]
                truncated[utterance] = True
            elif len(tokens[utterance]) >= limits[utterance]:
                truncated[utterance] = True
            else:
                keep.append(row)
        if len(keep) < len(alive):
            if not keep:
                break
            rows = torch.tensor(keep, device=chosen.device)
            cache.select(rows)
            chosen, alive = chosen[rows], [alive[row] for row in keep]
        output = model.lm.step(chosen, cache)
    return [collect(t, s, cut) for t, s, cut in zip(tokens, steps, truncated, strict=True)]


def collect(tokens: list[int], steps: list[tuple], truncated: bool) -> Generated:
    """Join per-token (log probability, weights (4, L1)) to arrays; the end token's weights count only for no text."""
    used = steps[: max(len(tokens), 1)]
    weights = np.stack([w for _, w in used], 1)  # (4, U, L1)
    logprobs = np.array([p for p, _ in used[: len(tokens)]], np.float32)
    return Generated(tokens, logprobs, *weights, truncated)
