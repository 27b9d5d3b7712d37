"""Scores on the dev corpora during training: WER for text, unweighted accuracy for classes."""

from collections import defaultdict

import numpy as np

from harmonifuse_core.config import Config
from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.examples import Example, load_examples
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput
from harmonifuse_core.tasks import TaskConfig
from harmonifuse_core.training.processes import Processes


def dev_scores(model: HarmoniFuse, config: Config, processes: Processes = Processes()) -> dict[str, float]:
    """{`asr.wer`, `ser.ua`, ...} over all dev corpora of a task together, and of each corpus by its manifest's name.

    Several processes divide the recordings and have the same scores.
    """
    totals: dict[str, np.ndarray] = defaultdict(float)
    kinds: dict[str, TaskConfig] = {}
    was_training = model.training
    for corpus in config.data.dev:
        task = config.model.task(corpus.task)
        name = corpus.manifest.rsplit("/", 1)[-1].removesuffix(".jsonl")
        examples = load_examples(corpus, task, config.data, teacher_texts(config) if corpus.teacher else {})
        mine = examples[processes.index :: processes.count]
        answers = predict(model, [decode_waveform(e.utterance.audio) for e in mine], PredictOptions(tasks=(task.name,)))
        counts = counts_of(task, mine, [answer[task.name] for answer in answers])
        counts = np.array(processes.total_of(counts.ravel().tolist())).reshape(counts.shape)
        for key in (task.name, f"{task.name}.{name}"):
            totals[key], kinds[key] = totals[key] + counts, task
    model.train(was_training)
    text = {key: kinds[key].measure for key in totals if kinds[key].writes_text}
    scores = {f"{key}.{measure}": float(totals[key][0] / totals[key][1]) for key, measure in text.items()}
    return scores | {f"{key}.ua": mean_recall(totals[key]) for key in totals if key not in text}


def counts_of(task: TaskConfig, examples: list[Example], answers: list[HarmoniFuseOutput]) -> np.ndarray:
    """Of text (2,): errors, words (characters for CER). Of classes (2, C): right ones, all."""
    if task.writes_text:
        pairs = zip(examples, answers, strict=True)
        errors = [word_errors(e.text, a.text, task.normalizer) for e, a in pairs]
        if task.measure == "cer":
            return np.array([sum(e.character_errors for e in errors), sum(e.reference_characters for e in errors)])
        return np.array([sum(e.word_errors for e in errors), sum(e.reference_words for e in errors)])
    counts = np.zeros((2, len(task.labels)))
    for example, answer in zip(examples, answers, strict=True):
        counts[:, example.label] += answer.label == task.labels[example.label], 1
    return counts


def mean_recall(counts: np.ndarray) -> float:
    """Unweighted accuracy: the mean recall of the classes that occur; `counts` (2, C) as above."""
    right, seen = counts[:, counts[1] > 0]
    return sum(r / n for r, n in zip(right.tolist(), seen.tolist(), strict=True)) / len(seen)


def teacher_texts(config: Config) -> dict[str, str]:
    from harmonifuse_core.training.teacher import TeacherFolder

    return TeacherFolder(config.data.teacher).transcripts
