"""Remove layers from one utterance's fusions and see what changes: the live form of `faithfulness.py`.

Removed means: the layer's alpha becomes 0 and the other weights are scaled up to the former sum, for the LM at every
token anew. An LM layer is taken out of the fusion, not out of the LM's own computation. Layer 0 is the state before the
first block. Shapes: `L1` states.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harmonifuse_core.analysis.interventions import STAGES, Change, ChangedFusions, ForcedTask, kept
from harmonifuse_core.analysis.material import SpeechBatch, Spoken
from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.data.segmentation import segment
from harmonifuse_core.inference.predict import Answers, PredictOptions, answer_task, encode
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.tasks import TaskConfig


@dataclass(frozen=True)
class Damage:
    """What removing one layer does to one task's answer.

    alpha: the weight that the layer had. loss: rise, in nats, of the loss of the intact answer (class: -log p of the
    class; text: mean over its tokens and the end); positive: the layer supported it. answer: what the model says now.
    """

    task: str
    stage: str
    layer: int
    alpha: float
    loss: float
    answer: HarmoniFuseOutput


@dataclass(frozen=True)
class Listened:
    """One recording, encoded once. seconds: of the part that was taken, at most what the model hears at once; whole:
    whether that is all of it."""

    states: EncoderStates
    seconds: float
    whole: bool


@torch.inference_mode()
def listen(model: HarmoniFuse, waveform: np.ndarray) -> Listened:
    """Encode (S,) at 16 kHz; of a recording that `predict` would cut, the first piece. Raises ValueError."""
    pieces = segment(waveform, max_seconds=model.config.max_seconds)
    if not pieces:
        raise ValueError("the recording holds no sample: choose another one")
    model.eval()
    start, stop = pieces[0]
    length = (stop - start) / SAMPLE_RATE
    return Listened(encode(model, [waveform[start:stop]], length), length, len(pieces) == 1)


@torch.inference_mode()
def answer_without(
    model: HarmoniFuse, heard: Listened, removed: Mapping[str, int | None], options: PredictOptions = PredictOptions()
) -> Answers:
    """Answers with one layer of a stage, or of both, removed: `removed` is {"encoder": k, "lm": j}, None leaves all.

    Raises ValueError for a stage or layer that the model has not.
    """
    changes = {stage: _removal(model, stage, layer) for stage, layer in removed.items() if layer is not None}
    changed = ChangedFusions(model, **changes)
    return {task: answer_task(changed, heard.states, task, options)[0] for task in options.task_names(model)}


@torch.inference_mode()
def knock_out_each(
    model: HarmoniFuse, heard: Listened, options: PredictOptions = PredictOptions()
) -> tuple[Answers, tuple[Damage, ...]]:
    """The intact answers, and each layer of both fusions removed once, for every task."""
    intact, found = answer_without(model, heard, {}, options), []
    for task, answer in intact.items():
        forced = _forced(model, heard, answer, options.prompt(model, task))
        for stage in STAGES:
            weights = answer.encoder.alpha if stage == "encoder" else answer.lm.alpha
            for layer, alpha in enumerate(weights):
                removal = _removal(model, stage, layer)
                score = forced.under(stage, removal(forced.fused(stage).alpha))
                rise = float(score.loss[0] - forced.score.loss[0])
                one = PredictOptions((task,), options.prompts, beams=options.beams)
                changed = answer_without(model, heard, {stage: layer}, one)[task]
                found.append(Damage(task, stage, layer, float(alpha), rise, changed))
    return intact, tuple(found)


def layers_of(model: HarmoniFuse, stage: str) -> int:
    """L1 of a stage. Raises ValueError."""
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} is unknown; use one of {', '.join(STAGES)}")
    return (model.encoder if stage == "encoder" else model.lm).layers + 1


def _removal(model: HarmoniFuse, stage: str, layer: int) -> Change:
    count = layers_of(model, stage)
    if not 0 <= layer < count:
        raise ValueError(f"layer {layer} of the {stage} does not exist: give 0 to {count - 1}")
    keep = torch.arange(count, device=model.device) != layer
    return lambda alpha: kept(alpha, keep)


def _forced(model: HarmoniFuse, heard: Listened, answer: HarmoniFuseOutput, prompt: str) -> ForcedTask:
    """The task with its own intact answer as the target."""
    spec: TaskConfig = model.config.task(answer.task)
    target = answer.text if spec.is_transcription else answer.label
    source = Source(Utterance("live", Path("live")), "live")
    item = Spoken(source, {answer.task: target}, {answer.task: target} if spec.is_transcription else {})
    return ForcedTask(model, SpeechBatch((item,), heard.states), answer.task, prompt)
