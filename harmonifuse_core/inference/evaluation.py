"""How good is a model on a corpus: every recording is answered for all tasks, and each task is scored where labels are.

    evaluation = evaluate(model, Selection("test.jsonl", split="test").sources())
    evaluation.as_dict()["asr"]["wer"]

The wall time goes from the first file's decoding to the last answer, with every task and both alphas computed for every
file, labels or not: the real-time factor is that of the whole path.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.predict import PredictOptions
from harmonifuse_core.inference.sources import Answered, Source, answer_sources
from harmonifuse_core.metrics import (
    ClassificationReport,
    TranscriptionReport,
    WordErrors,
    classification_report,
    normalize_text,
    transcription_report,
    word_errors,
)
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput
from harmonifuse_core.routing import Reference, RoutingWriter, records_of
from harmonifuse_core.tasks import TaskConfig

# Names of one emotion in the corpora at hand and in common ones; IEMOCAP's three-letter codes among them. Only words
# that mean the same: "excited" or "boredom" are for --label-map to decide.
SYNONYMS = (
    ("neutral", "neutrality", "neu"),
    ("calm", "calmness"),
    ("happy", "happiness", "joy", "joyful", "hap"),
    ("sad", "sadness"),
    ("angry", "anger", "ang"),
    ("fearful", "fear", "afraid", "scared", "fea"),
    ("disgust", "disgusted", "dis"),
    ("surprised", "surprise", "pleasant_surprise", "ps", "sur"),
)
NO_WORDS = "(no reference word after normalisation)"


@dataclass(frozen=True)
class Failure:
    """A recording that could not be answered, and why."""

    id: str
    path: str
    error: str


@dataclass(frozen=True)
class Evaluation:
    """Scores by task; tasks without labels are missing. left_out: {task: {manifest label: utterances}} that the model
    has no class for. utterances: answered ones. Seconds of audio and of wall time."""

    tasks: tuple[str, ...]
    scores: dict[str, TranscriptionReport | ClassificationReport]
    utterances: int
    audio_seconds: float
    wall_seconds: float
    failed: tuple[Failure, ...]
    left_out: dict[str, dict[str, int]]

    @property
    def rtf(self) -> float | None:
        return self.wall_seconds / self.audio_seconds if self.audio_seconds else None

    def as_dict(self) -> dict:
        """Ready for JSON: one entry a scored task under its own name, then what holds for all."""
        return {task: score.as_dict() for task, score in self.scores.items()} | {
            "tasks": list(self.tasks),
            "utterances": self.utterances,
            "audio_seconds": round(self.audio_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "rtf": None if self.rtf is None else round(self.rtf, 5),
            "failed": [vars(failure) for failure in self.failed],
            "left_out": self.left_out,
        }


def model_label(raw: str, labels: Sequence[str], label_map: Mapping[str, str] | None = None) -> str | None:
    """The model's class for a manifest's label: by `label_map`, by name, or by `SYNONYMS`; None where there is none."""
    if label_map and raw in label_map:
        return label_map[raw] or None
    name = raw.strip().lower()
    same = next((group for group in SYNONYMS if name in group), (name,))
    return next(
        (label for label in labels if label == raw), next((x for x in labels if x.lower() in (name, *same)), None)
    )


def task_label(raw: str, task: TaskConfig, label_map: Mapping[str, str] | None = None) -> str | None:
    """As `model_label`, for a task that may divide a number by its edges; None for a value that is no number."""
    if task.edges and raw not in (label_map or {}):
        try:
            return task.class_of(raw)
        except ValueError:
            return None
    return model_label(raw, task.labels, label_map)


@dataclass
class TranscriptionScore:
    """Gathers word errors of one task."""

    task: TaskConfig
    counts: list[WordErrors] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)

    def add(self, utterance: Utterance, answer: HarmoniFuseOutput) -> Reference:
        text = utterance.field(self.task.field)
        if text is None:
            return Reference()
        counts = word_errors(text, answer.text, self.task.normalizer)
        self.counts.append(counts)
        self.speakers.append(utterance.speaker or utterance.id)
        return Reference(text, counts)

    def report(self, resamples: int, seed: int) -> TranscriptionReport | None:
        if not any(c.reference_words for c in self.counts):  # a rate of nothing; jiwer would not define it either
            self.left_out.update({NO_WORDS: len(self.counts)} if self.counts else {})
            return None
        return transcription_report(self.counts, self.speakers, resamples=resamples, seed=seed)


@dataclass
class ClassificationScore:
    """Gathers probabilities of one task."""

    task: TaskConfig
    label_map: Mapping[str, str]
    references: list[int] = field(default_factory=list)
    probabilities: list[list[float]] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)

    def add(self, utterance: Utterance, answer: HarmoniFuseOutput) -> Reference:
        raw = utterance.field(self.task.field)
        if raw is None:
            return Reference()
        label = task_label(raw, self.task, self.label_map)
        if label is None:
            self.left_out[raw] += 1
            return Reference(label=raw)
        self.references.append(self.task.labels.index(label))
        self.probabilities.append([answer.probabilities[name] for name in self.task.labels])
        self.speakers.append(utterance.speaker or utterance.id)
        return Reference(label, label=raw)

    def report(self, resamples: int, seed: int) -> ClassificationReport | None:
        if not self.references:
            return None
        return classification_report(
            self.references, self.probabilities, self.task.labels, self.speakers, resamples=resamples, seed=seed
        )


def check_label_map(label_map: Mapping[str, str], tasks: Sequence[TaskConfig]):
    """Raises ValueError for a target that no task has."""
    known = [label for task in tasks for label in task.labels]
    for raw, label in label_map.items():
        if label and label not in known:
            raise ValueError(f"label map {raw}={label}: the model has no class {label!r}; it has {', '.join(known)}")


def evaluate(
    model: HarmoniFuse, sources: Sequence[Source], *, tasks: Sequence[str] = (),
    label_map: Mapping[str, str] | None = None, writer: RoutingWriter | None = None,
    on_answer: Callable[[Answered], None] | None = None,
    resamples: int = 2000, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Answer and score `sources`.

    tasks: which to run (all when empty). writer: gets the routing of every answer. on_answer: called after each
    recording, for progress. resamples, seed: of the bootstrap over speakers; an utterance without one is its own.
    """
    options = PredictOptions(tasks=tuple(tasks))
    specs = [model.config.task(name) for name in options.task_names(model)]
    check_label_map(label_map or {}, specs)
    scorers = {
        t.name: TranscriptionScore(t) if t.writes_text else ClassificationScore(t, label_map or {}) for t in specs
    }
    failed, answered, audio_seconds = [], 0, 0.0
    normalize_text("")  # builds its tables: seconds that belong to loading
    started = time.perf_counter()
    for item in answer_sources(model, sources, options):
        utterance = item.source.utterance
        if item.answers is None:
            failed.append(Failure(utterance.id, item.source.path, item.error))
        else:
            answered, audio_seconds = answered + 1, audio_seconds + item.seconds
            references = {name: scorer.add(utterance, item.answers[name]) for name, scorer in scorers.items()}
            if writer is not None:
                writer.write(
                    records_of(utterance, item.answers, references, audio=item.source.path, seconds=item.seconds)
                )
        if on_answer is not None:
            on_answer(item)
    wall_seconds = time.perf_counter() - started
    reports = {name: scorer.report(resamples, seed) for name, scorer in scorers.items()}
    return Evaluation(
        tasks=tuple(scorers),
        scores={name: report for name, report in reports.items() if report is not None},
        utterances=answered,
        audio_seconds=audio_seconds,
        wall_seconds=wall_seconds,
        failed=tuple(failed),
        left_out={name: dict(scorer.left_out) for name, scorer in scorers.items() if scorer.left_out},
    )
