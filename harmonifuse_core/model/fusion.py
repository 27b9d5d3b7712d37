"""The paper's two equations and nothing else. Each returns the fused states and alpha: returning alpha is the logging.

1. Gated encoder fusion:            H_fused = sum_i softmax(w)_i H_i
2. Prompt-adaptive layer fusion:    alpha^tau_l = softmax_l(b^tau_l + FFN(h_l)),  h_fused = sum_l alpha^tau_l h_l
Source: arXiv 2509.18570. Open points (normalisation, shared or per-task w, what the FFN reads) are config fields.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harmonifuse_core.config import GateConfig, LMConfig
from harmonifuse_core.model.standardise import RunningStandardise

INPUT_SCORE_WIDTH = 64
OFF = -1e9  # logit of a state that takes no part; finite, so that no gradient turns NaN


@dataclass(frozen=True)
class Fused:
    """Result of a fusion. Shapes: L1 = L + 1 states, `...` is (B,) for the encoder and (B, N) for the LM.

    states: (..., D) the weighted sum; alpha, bias, score, share: (..., L1).
    bias: b^tau (or w) part of the logits; score: the FFN part (0 for the paper's encoder gate);
    share: alpha_l * norm(h_l) / sum, the part of the sum's length that a layer brings.
    summary: (B, LM width) of the encoder's, what the layers say over the whole utterance, or None (`LayerSummary`).
    """

    states: Tensor
    alpha: Tensor
    bias: Tensor
    score: Tensor
    share: Tensor
    summary: Tensor | None = None


class StateNorm(nn.Module):
    """Layer-normalise every state alike, without parameters per layer, then one gain and bias for their sum.

    The shared gain keeps the scale that the next module was trained on (Whisper's final layer norm, for one).
    """

    def __init__(self, width: int, enabled: bool):
        super().__init__()
        self.enabled = enabled
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, state: Tensor) -> Tensor:
        if not self.enabled:
            return state
        return nn.functional.layer_norm(state, state.shape[-1:]) * self.gain


def effective_share(alpha: Tensor, norms: Tensor) -> Tensor:
    """alpha_l * norm_l, normalised to sum 1 over the last dimension; both (..., L1)."""
    weighted = alpha * norms
    return weighted / weighted.sum(-1, keepdim=True).clamp(min=1e-12)


def _initial_logits(layers: int, tasks: tuple[str, ...], last: float, chosen: tuple[str, ...]) -> Tensor:
    logits = torch.zeros(len(tasks), layers)
    for row, task in enumerate(tasks):
        if not chosen or task in chosen:
            logits[row, -1] = last
    return logits


def _fixed(mode: str, layers: int, what: str) -> int | None:
    if not mode.startswith("fixed:"):
        return None
    index = int(mode.removeprefix("fixed:"))
    if index >= layers:
        raise ValueError(f"{what} is {mode!r}, but the states are 0 to {layers - 1}")
    return index


@dataclass(frozen=True)
class Survey:
    """What every task's gate needs of the encoder states, worked out once for all of them.

    states: L1 layer-normalised (B, T, D), without gain; means: (B, L1, D) over the speech; norms: (B, L1), the mean
    length of a frame with the gain.
    """

    states: tuple[Tensor, ...]
    means: Tensor
    norms: Tensor


class GatedEncoderFusion(nn.Module):
    """Equation 1 over L1 encoder states, for K tasks."""

    def __init__(self, config: GateConfig, tasks: tuple[str, ...], states: int, width: int):
        super().__init__()
        self.config, self.tasks = config, tasks
        self.norm = StateNorm(width, config.normalise)
        rows = tasks if config.mode == "per_task" else ("shared",)
        chosen = config.last_logit_tasks if config.mode == "per_task" else ()
        self.logits = nn.Parameter(_initial_logits(states, rows, config.last_logit, chosen))  # w: (K or 1, L1)
        fixed = _fixed(config.mode, states, "gate.mode")
        if config.mode == "uniform" or fixed is not None:
            self.logits.requires_grad_(False).zero_()
        off = torch.zeros(states)
        if not config.include_input_state:
            off[0] = OFF
        if fixed is not None:
            off = torch.full((states,), OFF).index_fill(0, torch.tensor([fixed]), 0.0)
        self.register_buffer("off", off, persistent=False)
        self.ffn = None
        if config.input_score:
            self.standardise = RunningStandardise(states, width)  # w holds what is constant, the FFN what varies
            self.ffn = nn.Sequential(
                nn.Linear(width, INPUT_SCORE_WIDTH), nn.GELU(), nn.Linear(INPUT_SCORE_WIDTH, len(rows))
            )
            nn.init.zeros_(self.ffn[-1].weight)  # starts as the paper's gate
            nn.init.zeros_(self.ffn[-1].bias)

    def _row(self, task: str) -> int:
        return self.tasks.index(task) if self.config.mode == "per_task" else 0

    def weights(self, task: str) -> tuple[Tensor, Tensor]:
        """alpha of equation 1 and its logits w, (L1,) each, without any input score."""
        logits = self.logits[self._row(task)]
        return torch.softmax(logits + self.off, -1), logits

    def survey(self, states: tuple[Tensor, ...], mask: Tensor) -> Survey | None:
        """For `forward` of several tasks, or None: where gradients are wanted, and where states are not normalised.

        An accelerator has none either: there autocast chooses the types of each step.
        """
        if torch.is_grad_enabled() or not self.norm.enabled or mask.device.type != "cpu":
            return None
        frames = mask / mask.sum(1, keepdim=True)  # (B, T)
        normed = tuple(nn.functional.layer_norm(state, state.shape[-1:]) for state in states)
        means = [torch.bmm(frames[:, None], state)[:, 0] for state in normed]
        squares = self.norm.gain.square()
        norms = [((state.square() @ squares).sqrt() * frames).sum(1) for state in normed]
        return Survey(normed, torch.stack(means, 1), torch.stack(norms, 1))

    def input_scores(self, states: tuple[Tensor, ...], mask: Tensor, task: str, survey: Survey | None = None) -> Tensor:
        """FFN(standardised mean over time of the layer-normalised state): (B, L1); zeros without `input_score`."""
        if self.ffn is None:
            return torch.zeros(len(mask), len(states), device=mask.device)
        if survey is None:
            weight = (mask / mask.sum(1, keepdim=True))[..., None]
            means = torch.stack([(nn.functional.layer_norm(s, s.shape[-1:]) * weight).sum(1) for s in states], 1)
        else:
            means = survey.means
        return self.ffn(self.standardise(means))[..., self._row(task)].float()

    def forward(
        self,
        states: tuple[Tensor, ...],
        mask: Tensor,
        task: str,
        alpha: Tensor | None = None,
        survey: Survey | None = None,
    ) -> Fused:
        """Fuse `states` (L1 tensors (B, T, D)) for `task`; `mask` (B, T). `alpha` (L1,) or (B, L1) overrides the gate.

        B batch, T frames, L1 states, D width. Frames behind the speech come out as zero. `survey` of these states saves
        time, and changes no more than rounding does.
        """
        logits = self.logits[self._row(task)]
        survey = survey or self.survey(states, mask)
        score = self.input_scores(states, mask, task, survey)  # (B, L1)
        own = torch.softmax(logits + score + self.off, -1)
        alpha = own if alpha is None else alpha.to(own).expand_as(own)
        if survey is None:
            fused, norms = self._sum(states, mask, alpha)
        else:
            fused, norms = survey.states[0] * alpha[:, 0, None, None], survey.norms
            for index, state in enumerate(survey.states[1:], 1):
                fused.addcmul_(state, alpha[:, index, None, None])
            fused *= self.norm.gain
        fused = (fused + self.norm.bias) * mask[..., None]
        return Fused(fused, alpha, logits.expand_as(alpha), score, effective_share(alpha.detach(), norms))

    def _sum(self, states: tuple[Tensor, ...], mask: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum (B, T, D) and the states' mean lengths (B, L1)."""
        fused, norms = 0.0, []
        for index, state in enumerate(states):
            state = self.norm(state)
            with torch.no_grad():
                norms.append((state.norm(dim=-1) * mask).sum(1) / mask.sum(1))
            fused = fused + alpha[:, index, None, None] * state
        return fused, torch.stack(norms, -1)


class PromptAdaptiveFusion(nn.Module):
    """Equation 2 over L1 states of the LM, for K tasks. The FFN is shared by layers and tasks and scores one state."""

    def __init__(self, config: LMConfig, tasks: tuple[str, ...], states: int, width: int):
        super().__init__()
        self.config, self.tasks = config, tasks
        self.norm = StateNorm(width, config.normalise)
        self.task_bias = nn.Parameter(_initial_logits(states, tasks, config.last_logit, config.last_logit_tasks))
        self.ffn = nn.Sequential(nn.Linear(width, config.ffn_width), nn.GELU(), nn.Linear(config.ffn_width, 1))
        nn.init.zeros_(self.ffn[-1].weight)  # alpha starts at the task bias and learns to move with the input
        nn.init.zeros_(self.ffn[-1].bias)
        self.use_bias, self.use_ffn = config.fusion in ("adaptive", "bias"), config.fusion in ("adaptive", "input")
        fixed = states - 1 if config.fusion == "last" else _fixed(config.fusion, states, "lm.fusion")
        off = torch.zeros(states)
        if fixed is not None:
            off = torch.full((states,), OFF).index_fill(0, torch.tensor([fixed]), 0.0)
        self.register_buffer("off", off, persistent=False)
        if not self.use_bias:
            self.task_bias.requires_grad_(False).zero_()
        if not self.use_ffn:
            self.ffn.requires_grad_(False)

    def scores(self, state: Tensor) -> Tensor:
        """FFN score (...,) of one layer's states (..., D), scored as they are weighed but without the gain."""
        if self.config.normalise:
            state = nn.functional.layer_norm(state, state.shape[-1:])
        return self.ffn(state).squeeze(-1)

    def forward(
        self,
        states: tuple[Tensor, ...],
        task: str,
        pooled: tuple[Tensor, ...] | None = None,
        alpha: Tensor | None = None,
    ) -> Fused:
        """Fuse `states` (L1 tensors (B, N, D)) position by position.

        `pooled` (L1 tensors (B, D)): in `utterance` mode, the means over speech and prompt that the FFN reads instead.
        `alpha` (..., L1), broadcast over (B, N, L1), overrides the weights. N positions, L1 states, D width.
        """
        bias = self.task_bias[self.tasks.index(task)]  # (L1,)
        shape = (*states[0].shape[:-1], len(states))
        if not self.use_ffn:
            score = torch.zeros(shape, dtype=bias.dtype, device=bias.device)
        elif pooled is not None:
            score = torch.stack([self.scores(p) for p in pooled], -1)[:, None].expand(shape)
        else:
            score = torch.stack([self.scores(s) for s in states], -1)  # (B, N, L1)
        if alpha is None:
            alpha = torch.softmax(bias + score.float() + self.off, -1)
        alpha = alpha.to(bias).expand(shape)
        fused, norms = 0.0, []
        for index, state in enumerate(states):
            state = self.norm(state)
            norms.append(state.detach().norm(dim=-1))
            fused = fused + alpha[..., index, None] * state
        share = effective_share(alpha.detach(), torch.stack(norms, -1))
        return Fused(fused + self.norm.bias, alpha, bias.expand(shape), score, share)
