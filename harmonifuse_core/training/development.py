"""Scores on the dev corpora during training: WER for text, unweighted accuracy for classes."""

from collections import defaultdict

from harmonifuse_core.config import Config
from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.batching import load_examples
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.model.harmonifuse import HarmoniFuse


def dev_scores(model: HarmoniFuse, config: Config) -> dict[str, float]:
    """{`asr.wer`, `ser.ua`, ...} over all dev corpora of a task together, and of each corpus by its manifest's name."""
    errors, words = defaultdict(int), defaultdict(int)
    right, seen = defaultdict(lambda: defaultdict(int)), defaultdict(lambda: defaultdict(int))
    was_training = model.training
    for corpus in config.data.dev:
        task = config.model.task(corpus.task)
        name = corpus.manifest.rsplit("/", 1)[-1].removesuffix(".jsonl")
        examples = load_examples(corpus, task, config.data, teacher_texts(config) if corpus.teacher else {})
        answers = predict(
            model, [decode_waveform(e.utterance.audio) for e in examples], PredictOptions(tasks=(task.name,))
        )
        for example, answer in zip(examples, (a[task.name] for a in answers), strict=True):
            for key in (task.name, f"{task.name}.{name}"):
                if task.is_transcription:
                    count = word_errors(example.text, answer.text)
                    errors[key] += count.substitutions + count.deletions + count.insertions
                    words[key] += count.reference_words
                else:
                    seen[key][example.label] += 1
                    right[key][example.label] += answer.label == task.labels[example.label]
    model.train(was_training)
    scores = {f"{key}.wer": errors[key] / words[key] for key in words}
    return scores | {f"{key}.ua": sum(right[key][c] / n for c, n in seen[key].items()) / len(seen[key]) for key in seen}


def teacher_texts(config: Config) -> dict[str, str]:
    from harmonifuse_core.training.teacher import TeacherFolder

    return TeacherFolder(config.data.teacher).transcripts
