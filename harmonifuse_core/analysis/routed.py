"""What `infer` answers, as routing rows of one encoded batch: the raw material of divergence and signatures."""

from dataclasses import asdict

from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.analysis.registry import AnalysisOptions
from harmonifuse_core.inference.predict import PredictOptions, answer_task
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.routing import Reference, records_of


def collect_routing(model: HarmoniFuse, batch: SpeechBatch, options: AnalysisOptions) -> list[dict]:
    """One row an utterance, task and stage, all tasks on every utterance: the columns of a routing file.

    Decoding is the model's own (its beams), so alpha is what `infer` returns.
    """
    columns = {t.name: answer_task(model, batch.states, t.name, PredictOptions()) for t in model.config.tasks}
    rows = []
    for i, item in enumerate(batch.items):
        answers = {task: column[i] for task, column in columns.items()}
        references = {
            task: Reference(value, None if answers[task].text is None else word_errors(value, answers[task].text))
            for task, value in item.targets.items()
        }
        for record in records_of(item.utterance, answers, references, audio=item.source.path):
            row = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(record).items()}
            rows.append(row | {"speaker": item.speaker})
    return rows
