"""Beam search for a whole batch; alpha of every token comes along, as in greedy decoding."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.model.decoding import Forbidden, Generated, collect, repeats, token_limit
from harmonifuse_core.model.fusion import Fused
from harmonifuse_core.model.speech_encoder import EncoderStates

MARGIN = 2.0  # nats that a hypothesis may lie behind the best one


@dataclass
class Hypothesis:
    """A text in the making. `steps` holds (log probability, weights (4, L1)) of each token, the end token included."""

    tokens: list[int] = field(default_factory=list)
    steps: list[tuple[float, np.ndarray]] = field(default_factory=list)
    total: float = 0.0
    truncated: bool = False

    def score(self) -> float:
        """Mean log probability of a token, so that short texts are not preferred."""
        return self.total / max(1, len(self.steps))

    def extended(self, token: int, logprob: float, weights: np.ndarray, end: int) -> "Hypothesis":
        tokens = self.tokens if token == end else [*self.tokens, token]
        return Hypothesis(tokens, [*self.steps, (logprob, weights)], self.total + logprob)


@torch.inference_mode()
def beam_search(
    model,
    states: EncoderStates,
    encoder_fused: Fused,
    task: str,
    prompt: str,
    beams: int,
    lm_alpha: Tensor | None = None,
    margin: float = MARGIN,
) -> list[Generated]:
    """Like `decoding.greedy`, keeping up to `beams` hypotheses an utterance.

    A hypothesis whose log probability lies more than `margin` below the best one's is dropped (Freitag and Al-Onaizan
    2017): where the model is sure, the search costs no more than greedy decoding. An utterance leaves with its first
    `beams` ends, or when nothing is left that could follow.
    """
    forbid, end = Forbidden(model.tokenizer), model.tokenizer.end
    output, cache = model.lm.start(encoder_fused.states, states.mask, model.tokenizer.prompt_ids(prompt))
    limits = [token_limit(frames / 50) for frames in states.frames.tolist()]
    active: dict[int, list[Hypothesis]] = {u: [Hypothesis()] for u in range(len(limits))}
    finished: dict[int, list[Hypothesis]] = {u: [] for u in active}
    while active:
        owners = [u for u, hypotheses in active.items() for _ in hypotheses]  # of the rows
        fused = model.fuse_lm(
            output, task, lm_alpha[owners] if lm_alpha is not None and lm_alpha.ndim == 3 else lm_alpha
        )
        logits = model.lm.logits(fused.states[:, 0]).float()  # (R, V)
        logprobs, tokens = (best.tolist() for best in torch.log_softmax(forbid(logits), -1).topk(beams + 1, dim=-1))
        weights = torch.stack([fused.alpha, fused.bias, fused.score, fused.share])[:, :, 0].float().cpu().numpy()
        rows, chosen, still, offset = [], [], {}, 0
        for utterance, hypotheses in active.items():
            options = sorted(
                ((h.total + p, offset + i, t, p) for i, h in enumerate(hypotheses)
                 for p, t in zip(logprobs[offset + i], tokens[offset + i], strict=True)),
                reverse=True,
            )  # fmt: skip
            follow = []
            for total, row, token, logprob in options:
                if len(follow) == beams or total < options[0][0] - margin:
                    break
                grown = hypotheses[row - offset].extended(token, logprob, weights[:, row], end)
                if token == end:
                    finished[utterance].append(grown)
                elif (drop := repeats(grown.tokens)) or len(grown.tokens) >= limits[utterance]:
                    grown.tokens, grown.truncated = grown.tokens[: len(grown.tokens) - drop], True
                    finished[utterance].append(grown)
                else:
                    follow.append((row, grown))
            offset += len(hypotheses)
            if follow and len(finished[utterance]) < beams:
                still[utterance] = [grown for _, grown in follow]
                rows += [row for row, _ in follow]
                chosen += [grown.tokens[-1] for _, grown in follow]
        active = still
        if active:
            if rows != list(range(len(owners))):
                cache.select(torch.tensor(rows, device=logits.device))
            output = model.lm.step(torch.tensor(chosen, device=logits.device), cache)
    winners = [max(ends, key=rank) for ends in finished.values()]
    return [collect(w.tokens, w.steps, w.truncated) for w in winners]


def rank(hypothesis: Hypothesis) -> tuple[bool, float]:
    """Texts that ended by themselves go before texts that were cut."""
    return not hypothesis.truncated, hypothesis.score()
