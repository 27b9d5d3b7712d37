"""What one trained cell answers on the study's evaluations, and which layers it listened to.

Evaluation speech is encoded once for all cells of one frozen encoder that run in a process: the states depend on the
encoder's weights alone. Shapes: `B` batch, `L1` states.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmonifuse_core.analysis.material import Spoken, read_batch, with_targets
from harmonifuse_core.inference.parallel import length_batches
from harmonifuse_core.inference.predict import PredictOptions, answer_task
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.studies.plan import EvaluationSet, Study
from harmonifuse_core.tasks import TaskConfig

BATCH_SECONDS, BATCH_SIZE = 320.0, 32
DIGITS = 6  # of stored weights


@dataclass(frozen=True)
class Heard:
    """Utterances that were decoded and encoded together."""

    sources: tuple[Source, ...]
    states: EncoderStates

    @property
    def bytes(self) -> int:
        return sum(state.nbytes for state in self.states.states)


@dataclass(frozen=True)
class Scored:
    """Rows as `studies/rows.py` stores them, without the cell's name; failed: recordings that could not be used."""

    utterances: list[dict]
    alphas: list[dict]
    failed: list[str]


def fingerprint(model: HarmoniFuse) -> str:
    """Of everything that the encoder's states depend on; empty where the encoder learns."""
    encoder = model.encoder
    if encoder.trainable_from < encoder.layers:
        return ""
    digest = hashlib.sha256(f"{encoder.config} {model.config.max_seconds}".encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).data)
    return digest.hexdigest()


class Listener:
    """Encodes evaluations; keeps the states of frozen encoders in memory up to `megabytes`."""

    def __init__(self, megabytes: int = 4000):
        self.room, self.kept = megabytes * 2**20, {}

    def batches(self, model: HarmoniFuse, evaluation: EvaluationSet) -> Iterator[Heard | str]:
        """Batches of like length, or the reason why a recording cannot be used."""
        key = (fingerprint(model), repr(evaluation))
        if key[0] and key in self.kept:
            yield from self.kept[key]
            return
        fresh = []
        for item in self._encode(model, evaluation.sources()):
            fresh.append(item)
            yield item
        size = sum(item.bytes for item in fresh if isinstance(item, Heard))
        if key[0] and size <= self.room:
            self.room -= size
            self.kept[key] = fresh

    def _encode(self, model: HarmoniFuse, sources: Sequence[Source]) -> Iterator[Heard | str]:
        seconds = [source.utterance.duration or 5.0 for source in sources]
        for rows in length_batches(seconds, BATCH_SECONDS, BATCH_SIZE):
            batch, errors = read_batch(model, [Spoken(sources[row], {}, {}) for row in rows])
            yield from errors
            if batch is not None:
                yield Heard(tuple(item.source for item in batch.items), batch.states)


def check_labels(study: Study):
    """Before anything is trained: every evaluation can be read and has labels of its tasks. Raises ValueError."""
    tasks = {task.name: task for system in study.systems for task in study.config(system).model.tasks}
    for evaluation in study.evaluations:
        asked = [tasks[name] for name in evaluation.tasks]
        found = [with_targets(source, asked, evaluation.label_map, {}).targets for source in evaluation.sources()]
        for task in asked:
            if not any(task.name in targets for targets in found):
                raise ValueError(f"evaluation {evaluation.name}: no utterance has a label of task {task.name}")


@torch.inference_mode()
def score_model(model: HarmoniFuse, evaluations: Sequence[EvaluationSet], listener: Listener) -> Scored:
    """Answers and mean weights of every evaluation for those of its tasks that the model has; sets eval mode."""
    model.eval()
    rows, alphas, failed = [], [], []
    for evaluation in evaluations:
        tasks = [task for task in model.config.tasks if task.name in evaluation.tasks]
        answers: dict[str, list[HarmoniFuseOutput]] = {task.name: [] for task in tasks}
        for heard in listener.batches(model, evaluation) if tasks else ():
            if isinstance(heard, str):
                failed.append(f"{evaluation.name}: {heard}")
                continue
            for task in tasks:
                found = _answer(model, heard, task, evaluation)
                rows += [row for row, _ in found]
                answers[task.name] += [answer for _, answer in found]
        for task in tasks:
            if not answers[task.name]:
                raise ValueError(f"evaluation {evaluation.name}: no answer for task {task.name}: {failed}")
            for stage in ("encoder", "lm"):
                row = {"evaluation": evaluation.name, "task": task.name, "stage": stage}
                alphas.append(row | _mean([getattr(answer, stage) for answer in answers[task.name]]))
    return Scored(rows, alphas, failed)


def _answer(model, heard: Heard, task: TaskConfig, evaluation: EvaluationSet) -> list[tuple[dict, HarmoniFuseOutput]]:
    """The utterances of a batch that have a label of `task`: their rows and answers."""
    items = [with_targets(source, [task], evaluation.label_map, {}) for source in heard.sources]
    if not any(task.name in item.targets for item in items):
        return []
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        answers = answer_task(model, heard.states, task.name, PredictOptions())
    rows = []
    for item, answer in zip(items, answers, strict=True):
        if (reference := item.targets.get(task.name)) is None:
            continue
        row = {
            "evaluation": evaluation.name, "task": task.name, "utterance": item.id, "speaker": item.speaker,
            "dataset": item.utterance.dataset or None, "reference": reference,
        }  # fmt: skip
        if task.is_transcription:
            counts = word_errors(reference, answer.text)
            row |= {"prediction": answer.text, "errors": counts.word_errors, "words": counts.reference_words}
        else:
            row |= {"prediction": answer.label, "correct": answer.label == reference}
        rows.append((row, answer))
    return rows


def _mean(weights) -> dict:
    """Mean over utterances of (L1,) weights, and the spread of alpha."""
    names = ("alpha", "share", "bias")
    columns = {name: np.stack([getattr(w, name) for w in weights]).astype(np.float64) for name in names}
    mean = {name: column.mean(0).round(DIGITS).tolist() for name, column in columns.items()}
    spread = columns["alpha"].std(0).round(DIGITS).tolist()
    return mean | {"alpha_std": spread, "utterances": len(weights)}
