"""Routing records with planted weights, written and indexed."""

from pathlib import Path

from app import routing_index, routing_query
from app.routing_index import RoutingIndex
from harmonifuse_core.routing import RoutingRecord, RoutingWriter


def record(utterance: str, task: str, stage: str, alpha, **more) -> RoutingRecord:
    alpha = tuple(float(v) for v in alpha)
    share = tuple(alpha[::-1])
    prediction = more.pop("prediction", "two words" if task == "asr" else "happy")
    return RoutingRecord(utterance=utterance, task=task, prompt="p", stage=stage, alpha=alpha, bias=alpha, score=alpha,
                         share=share, prediction=prediction, **more)  # fmt: skip


def written(path: Path, records: list[RoutingRecord]) -> Path:
    with RoutingWriter(path) as writer:
        writer.write(records)
    return path


def indexed(*paths: Path) -> RoutingIndex:
    return routing_index.build(routing_query.routing_files(paths))
