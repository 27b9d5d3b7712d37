"""What pages on logged routing share: the index, or what is missing and the command that writes it."""

import shlex

from app import services
from app.components import plain
from app.routing_index import RoutingIndex
from app.routing_query import RoutingFiles
from harmonifuse_core.runs import RunError, RunFolder


def opened(run: RunFolder) -> tuple[RoutingFiles, RoutingIndex] | None:
    """Files and index of the run's routing, or None after an explanation."""
    files = services.routing_files(run)
    plain.notes("routing", files.problems)
    if not files.paths:
        missing(run)
        return None
    try:
        return files, services.routing_index_of(files)
    except RunError as error:
        plain.problem("routing-index", "The logged routing of this run cannot be read.", str(error))
        missing(run)
        return None


def missing(run: RunFolder) -> None:
    path = shlex.quote(f"runs/{run.name}")
    plain.empty(
        "No usable routing is logged in this run",
        "Routing keeps, for each utterance and task, the weights of every layer beside the answer. Write it with:",
        f"python -m harmonifuse_core.evaluate --run {path} --manifest M.jsonl --split test --save test",
    )


def counted(index: RoutingIndex) -> str:
    """What the index holds, and what it left out and why."""
    said = f"{index.utterances:,} logged utterances."
    if index.repeated:
        said += f" {index.repeated:,} rows stand in more than one evaluation and count once."
    if index.odd:
        said += f" {index.odd:,} rows are left out: damaged, or of another number of layers."
    return said
