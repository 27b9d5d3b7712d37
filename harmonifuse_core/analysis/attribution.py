"""Which layers, frames or prompt tokens does one answer need? One contract for every method (captum):

    found = attribute(model, clip, "ser", "layer_ablation")
    found.scores                  # one a layer, frame window or token: how much of the target it brings
    deletion_check(found)         # `deletion.py`: does removing the top ones hurt more than removing random ones?

| method | what is scored | how |
|---|---|---|
| `layer_ablation` | terms of the gated encoder fusion | removed one at a time: exact, a forward each and one intact |
| `layer_integrated_gradients` | the same | integrated gradients (Sundararajan et al. 2017) |
| `frame_ablation` | windows of the fused speech | removed one at a time |
| `frame_integrated_gradients` | single frames of the fused speech | integrated gradients |
| `token_ablation` | prompt tokens, by their input embeddings | removed one at a time |
| `token_integrated_gradients` | the same | integrated gradients |

Removed means: replaced by the baseline. A layer's term becomes zero (nothing of it in the sum), a frame the mean frame
of the utterance, a token's embedding the mean of the vocabulary; `baseline="zero"` takes zeros everywhere. The target
is a class's logit, or the mean log probability of the tokens of the model's own transcript. The encoder's alpha is
held, the LM's is computed anew, as it is part of the answer. Ablation scores need not add up to the whole; those of
integrated gradients do, up to `convergence_delta`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.analysis.explained_answer import ExplainedAnswer, explain_answer
from harmonifuse_core.analysis.prompt_embedding import input_embedding
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import EncoderStates

ABLATION, GRADIENTS = "ablation", "integrated_gradients"
OVER = LAYER, FRAME, TOKEN = ("layer", "frame", "token")
METHODS = tuple(f"{over}_{how}" for over in OVER for how in (ABLATION, GRADIENTS))
BASELINES = ("zero", "mean")
FRAMES_PER_SECOND = 50  # of all encoders here
SILENCE = "silence behind"
WINDOW_SECONDS = 0.1
TOGETHER, MOST_VALUES = 16, 2**25  # perturbed copies in one forward pass, and their numbers at most (128 MB)
STEPS = 32


@dataclass(frozen=True)
class Attribution:
    """Scores of one answer.

    scores: (F,) float64, positive: it supports the target. names: F, e.g. "layer 3", "1.20-1.40 s", "' speech'".
    seconds: (F, 2) start and end of frames or windows, else None. value: the target as it is; baseline_value: with
    everything replaced by the baseline. convergence_delta: sum of scores minus (value - baseline_value), None for
    ablation, where no such equality holds. forwards: of the LM behind the encoder. answer: what was explained.
    """

    method: str
    task: str
    target: str
    label: str
    prompt: str
    baseline: str
    scores: np.ndarray
    names: tuple[str, ...]
    seconds: np.ndarray | None
    value: float
    baseline_value: float
    convergence_delta: float | None
    forwards: int
    inputs: "ExplainedInput"

    @property
    def over(self) -> str:
        return self.method.split("_")[0]

    def as_dict(self) -> dict:
        """Ready for JSON, without the tensors."""
        plain = {k: v for k, v in vars(self).items() if k not in ("inputs", "scores", "seconds")}
        seconds = None if self.seconds is None else self.seconds.round(3).tolist()
        return plain | {"names": list(self.names), "scores": self.scores.tolist(), "seconds": seconds}


@dataclass(frozen=True)
class ExplainedInput:
    """A function of one input and the groups that are scored.

    function: (N, *shape) -> (N,). value, baseline: (*shape). groups: (*shape) int64, broadcastable, from 0.
    """

    function: Callable[[Tensor], Tensor]
    value: Tensor
    baseline: Tensor
    groups: Tensor

    @property
    def count(self) -> int:
        return int(self.groups.max()) + 1

    @property
    def together(self) -> int:
        """Perturbed copies that go through the model at once."""
        return min(TOGETHER, max(1, MOST_VALUES // self.value.numel()))

    @torch.no_grad()
    def at(self, keep: Tensor) -> Tensor:
        """(M, F) bool -> (M,) target where only the groups of `keep` are intact."""
        found = []
        for part in keep.to(self.value.device).split(self.together):
            mask = part[:, self.groups]  # (M', *shape or broadcastable)
            found.append(self.function(torch.where(mask, self.value, self.baseline)))
        return torch.cat(found).float()


def attribute(
    model: HarmoniFuse, clip: np.ndarray | EncoderStates, task: str, method: str = "layer_ablation", *,
    target: str | int | None = None, prompt: str | None = None, baseline: str | None = None,
    window_seconds: float = WINDOW_SECONDS, steps: int = STEPS, answer: ExplainedAnswer | None = None,
) -> Attribution:  # fmt: skip
    """Explain one answer of `task` for one utterance, at most `model.config.max_seconds` long.

    clip: (S,) waveform at 16 kHz, or a batch of one of encoder states. method: see the table above. target: a class, or
    the position of a token of the transcript; None: the class that the model chose, or all tokens. prompt: None is the
    task's default, "" none. baseline: `zero` or `mean` (None: zero for layers, mean else). window_seconds: of
    `frame_ablation`. steps: of integrated gradients. answer: from `explain_answer`, to explain one answer several times
    without decoding it again (clip, target and prompt are then not looked at). Raises ValueError.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; use one of {', '.join(METHODS)}")
    over, how = method.split("_", 1)
    baseline = baseline or ("zero" if over == LAYER else "mean")
    if baseline not in BASELINES:
        raise ValueError(f"baseline {baseline!r} is unknown; use one of {', '.join(BASELINES)}")
    # Gradients are needed, also where a batch command collects under inference mode.
    with torch.inference_mode(False):
        answer = answer or explain_answer(model, clip, task, prompt, target)
        inputs, names, seconds = explained_input(answer, over, baseline, how == ABLATION, window_seconds)
        scores, delta, forwards = explain(inputs, how, steps)
        value, floor = inputs.at(torch.tensor([[True], [False]]).expand(-1, inputs.count)).tolist()
    spoken = model.tokenizer.decode(list(answer.prompt_ids))
    return Attribution(
        method, task, answer.target, answer.label, spoken, baseline, scores, names, seconds, value, floor, delta,
        forwards, inputs,
    )  # fmt: skip


def explain(inputs: ExplainedInput, how: str, steps: int = STEPS) -> tuple[np.ndarray, float | None, int]:
    """Scores (F,), convergence delta (None for ablation) and forwards, of any function."""
    from captum.attr import FeatureAblation, IntegratedGradients  # brings matplotlib: only where asked

    value, baseline = inputs.value[None], inputs.baseline[None]
    groups = inputs.groups.expand_as(inputs.value)
    if how == ABLATION:
        with torch.no_grad():
            scored = FeatureAblation(inputs.function).attribute(
                value, baselines=baseline, feature_mask=groups[None], perturbations_per_eval=inputs.together
            )[0]
        first = torch.zeros(inputs.count, dtype=scored.dtype, device=scored.device)
        # Every element of a group carries the group's score.
        scores = first.scatter(0, groups.flatten(), scored.flatten())
        return scores.double().cpu().numpy(), None, inputs.count + 1
    with torch.enable_grad():
        scored, delta = IntegratedGradients(inputs.function).attribute(
            value, baselines=baseline, n_steps=steps, internal_batch_size=inputs.together, return_convergence_delta=True
        )
    scores = torch.zeros(inputs.count, dtype=torch.float64, device=scored.device)
    scores = scores.index_add(0, groups.flatten(), scored[0].detach().double().flatten())
    return scores.cpu().numpy(), float(delta[0]), steps


def explained_input(
    answer: ExplainedAnswer, over: str, baseline: str, windows: bool, window_seconds: float
) -> tuple[ExplainedInput, tuple[str, ...], np.ndarray | None]:
    """What is scored, the names of its groups, and their seconds (frames only)."""
    if over == LAYER:
        value, function = answer.terms, answer.of_terms
        floor = torch.zeros_like(value)
        if baseline == "mean":  # the statistics' rows are standardised: their mean is 0
            floor[:, : len(answer.speech)] = value[:, : len(answer.speech)].mean(1, keepdim=True)
        names = tuple(f"layer {k}" for k in range(len(value)))
        return ExplainedInput(function, value, floor, _index(value)), names, None
    if over == TOKEN:
        value, function = answer.prompt, answer.of_prompt
        table = input_embedding(answer.model.lm).weight.detach()
        floor = (table.mean(0) if baseline == "mean" else torch.zeros_like(value[0])).expand_as(value)
        names = tuple(answer.model.tokenizer.piece(i) for i in answer.prompt_ids)
        return ExplainedInput(function, value, floor.clone(), _index(value)), names, None
    value, function, count = answer.frames, answer.of_frames, len(answer.speech)
    floor = (value.mean(-2, keepdim=True) if baseline == "mean" else torch.zeros_like(value)).expand_as(value)
    width = max(1, round(window_seconds * FRAMES_PER_SECOND)) if windows else 1
    silence = answer.model.encoder.silence  # its frames are one group behind the others
    own = count - (silence.frames if silence else 0)
    groups = torch.arange(count, device=value.device).clamp(max=own - 1) // width
    groups[own:] += 1
    edges = np.append(np.arange(0, own, width), [own, count] if silence else own) / FRAMES_PER_SECOND
    names = [f"{a:.2f}-{b:.2f} s" for a, b in pairwise(edges)]
    if silence:
        names[-1] = SILENCE
    seconds = np.stack([edges[:-1], edges[1:]], 1)
    groups = groups.reshape(*[1] * (value.ndim - 2), -1, 1)
    return ExplainedInput(function, value, floor.clone(), groups), tuple(names), seconds


def _index(value: Tensor) -> Tensor:
    """(F, 1, ...): the first dimension is what is scored."""
    return torch.arange(len(value), device=value.device).reshape(-1, *[1] * (value.ndim - 1))
