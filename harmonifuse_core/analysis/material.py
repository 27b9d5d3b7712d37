"""What analyses work on: utterances with their labels in batches, encoded once for all conditions.

Shapes: `B` batch, `T` frames, `L1` states, `D` width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from harmonifuse_core.data.audio import AudioError, load_audio
from harmonifuse_core.data.examples import styled
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.evaluation import task_label
from harmonifuse_core.inference.predict import encode
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.tasks import CTC, TaskConfig

ENCODE_SECONDS = 40.0
SURVEY = 64  # utterances


@dataclass(frozen=True)
class Spoken:
    """One utterance to analyse. targets: {task: reference text, or the model's class}; tasks without label are missing.

    text_targets: {task: reference in the style that the model writes}, for teacher forcing.
    """

    source: Source
    targets: Mapping[str, str]
    text_targets: Mapping[str, str]

    @property
    def utterance(self) -> Utterance:
        return self.source.utterance

    @property
    def id(self) -> str:
        return self.source.utterance.id

    @property
    def speaker(self) -> str:
        """An utterance without one is its own."""
        return self.utterance.speaker or self.utterance.id

    @property
    def seconds(self) -> float:
        return self.utterance.duration or 5.0


@dataclass(frozen=True)
class SpeechBatch:
    """items: B of them; states: of their speech, L1 tensors (B, T, D) and mask (B, T). waveforms: B of (S_i,)."""

    items: tuple[Spoken, ...]
    states: EncoderStates
    waveforms: tuple[np.ndarray, ...] = ()

    def rows(self, positions: Sequence[int]) -> "SpeechBatch":
        """These utterances alone, frames cut to the longest of them."""
        index = torch.tensor(list(positions), device=self.states.mask.device)
        mask = self.states.mask[index]
        frames = int(mask.sum(1).max())
        states = EncoderStates(tuple(s[index, :frames] for s in self.states.states), mask[:, :frames])
        waveforms = tuple(self.waveforms[i] for i in positions) if self.waveforms else ()
        return replace(self, items=tuple(self.items[i] for i in positions), states=states, waveforms=waveforms)

    def labelled(self, task: str) -> "SpeechBatch | None":
        """The utterances that have a label of `task`; None where there is none."""
        positions = [i for i, item in enumerate(self.items) if task in item.targets]
        return self.rows(positions) if positions else None


def text_styles(config) -> dict[str, str]:
    """{transcription task: style of its training transcripts} of a run's `Config`; `sentence` before `asis`."""
    corpora = [c for c in config.data.train if not c.teacher]
    return {
        t.name: "sentence" if any(c.task == t.name and c.text_style == "sentence" for c in corpora) else "asis"
        for t in config.model.tasks
        if t.is_transcription
    }


def spoken(
    selection: Selection, tasks: Sequence[TaskConfig], styles: Mapping[str, str] | None = None,
    skip: Mapping[str, Sequence[str]] | None = None,
) -> list[Spoken]:  # fmt: skip
    """The utterances of a selection with what the model should answer. Raises ManifestError or SourceError.

    skip: {dataset: tasks whose labels do not count there}, e.g. transcripts in a language that the model does not know.
    """
    found = []
    for source in selection.sources():
        left = (skip or {}).get(source.utterance.dataset, ())
        asked = [task for task in tasks if task.name not in left]
        found.append(with_targets(source, asked, selection.label_map, styles or {}))
    return found


def with_targets(
    source: Source, tasks: Sequence[TaskConfig], label_map: Mapping[str, str], styles: Mapping[str, str]
) -> Spoken:
    targets, texts = {}, {}
    for task in tasks:
        raw = source.utterance.field(task.field)
        if raw is None or task.kind == CTC:  # the analyses know one answer, or tokens that the LM writes
            continue
        if task.is_transcription:
            targets[task.name], texts[task.name] = raw, styled(raw, styles.get(task.name, "asis"))
        elif (label := task_label(raw, task, label_map)) is not None:
            targets[task.name] = label
    return Spoken(source, targets, texts)


def read_batch(model: HarmoniFuse, items: Sequence[Spoken]) -> tuple[SpeechBatch | None, list[str]]:
    """Decode and encode; what cannot be read, or is longer than the model takes at once, is left out with a reason."""
    good, clips, errors = [], [], []
    for item in items:
        try:
            clip = load_audio(item.utterance.audio, name=item.source.path)
        except AudioError as error:
            errors.append(str(error))
            continue
        if clip.seconds > model.config.max_seconds:
            limit = f"{clip.seconds:.1f} s is longer than model.max_seconds {model.config.max_seconds:g}"
            errors.append(f"{item.source.path}: {limit}: cut the recording")
            continue
        good.append(item)
        clips.append(clip.waveform)
    try:
        return (encode_batch(model, good, clips) if good else None), errors
    except ValueError as error:  # one of them is too short for the front end, say
        if len(items) == 1:
            return None, [f"{items[0].source.path}: the model cannot take it ({error})"]
    alone = [read_batch(model, [item]) for item in good]
    errors += [message for _, found in alone for message in found]
    places = [place for place, (batch, _) in enumerate(alone) if batch is not None]
    return (encode_batch(model, [good[p] for p in places], [clips[p] for p in places]) if places else None), errors


@torch.inference_mode()
def encode_batch(model: HarmoniFuse, items: Sequence[Spoken], waveforms: Sequence[np.ndarray]) -> SpeechBatch:
    """One encoder pass for (S_i,) waveforms at 16 kHz; puts the model in eval mode."""
    model.eval()
    return SpeechBatch(tuple(items), encode(model, waveforms, ENCODE_SECONDS), tuple(waveforms))
