"""Beam search for a whole batch; alpha of every token comes along, as in greedy decoding."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.model.decoding import Forbidden, Generated, collect, repeats, token_limit
from harmonifuse_core.model.encoder import EncoderStates
from harmonifuse_core.model.fusion import Fused


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
) -> list[Generated]:
    """Like `decoding.greedy`, keeping `beams` hypotheses an utterance, which leaves with its first `beams` ends."""
    forbid, end = Forbidden(model.tokenizer), model.tokenizer.end
    output, cache = model.lm.start(encoder_fused.states, states.mask, model.tokenizer.prompt_ids(prompt))
    limits = [token_limit(frames / 50) for frames in states.frames.tolist()]
    alive = list(range(len(limits)))
    active: dict[int, list[Hypothesis]] = {u: [Hypothesis()] for u in alive}
    finished: dict[int, list[Hypothesis]] = {u: [] for u in alive}
    while alive:
        width = len(active[alive[0]])  # 1 at the start, then `beams`
        override = (
            lm_alpha[alive].repeat_interleave(width, 0) if lm_alpha is not None and lm_alpha.ndim == 3 else lm_alpha
        )
        fused = model.fuse_lm(output, task, override)
        logits = model.lm.logits(fused.states[:, 0]).float()  # (B' width, V)
        logprobs, tokens = (best.tolist() for best in torch.log_softmax(forbid(logits), -1).topk(beams + 1, dim=-1))
        weights = torch.stack([fused.alpha, fused.bias, fused.score, fused.share])[:, :, 0].float().cpu().numpy()
        keep, rows, chosen, still = [], [], [], []
        for place, utterance in enumerate(alive):
            offset, hypotheses = place * width, active[utterance]
            options = sorted(
                ((h.total + p, i, t, p) for i, h in enumerate(hypotheses)
                 for p, t in zip(logprobs[offset + i], tokens[offset + i], strict=True)),
                reverse=True,
            )  # fmt: skip
            follow, parents = [], []
            for _, parent, token, logprob in options:
                grown = hypotheses[parent].extended(token, logprob, weights[:, offset + parent], end)
                if token == end:
                    finished[utterance].append(grown)
                elif (drop := repeats(grown.tokens)) or len(grown.tokens) >= limits[utterance]:
                    grown.tokens, grown.truncated = grown.tokens[: len(grown.tokens) - drop], True
                    finished[utterance].append(grown)
                else:
                    follow.append(grown)
                    parents.append(parent)
                if len(follow) == beams:
                    break
            if len(finished[utterance]) >= beams or len(follow) < beams:
                continue
            keep.append(place)
            still.append(utterance)
            active[utterance] = follow
            rows += [place * beams + parent for parent in parents]
            chosen += [h.tokens[-1] for h in follow]
        if not still:
            break
        if width == 1 and beams > 1:
            cache.expand(beams)
        device = logits.device
        utterances = torch.tensor(keep, device=device) if len(keep) < len(alive) else None
        cache.select(torch.tensor(rows, device=device), utterances)
        alive = still
        output = model.lm.step(torch.tensor(chosen, device=device), cache)
    winners = [max(finished[u] or active[u], key=rank) for u in range(len(limits))]
    return [collect(w.tokens, w.steps, w.truncated) for w in winners]


def rank(hypothesis: Hypothesis) -> tuple[bool, float]:
    """Texts that ended by themselves go before texts that were cut."""
    return not hypothesis.truncated, hypothesis.score()
