"""Logged routing in Parquet, asked through DuckDB: a page of utterances, one utterance, the values to filter by.

Every value from outside is a query parameter; column and file names come from this file and from the run folder alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

PAGE_ROWS = 50
NEEDED = ("utterance", "task", "stage", "alpha")
FILTERS = ("split", "dataset", "task")
TEXT_COLUMNS = ("utterance", "reference", "prediction", "speaker")
MOST_FACETS = 200
SHOWN = (
    "utterance", "task", "reference", "prediction", "error", "errors", "reference_words", "probability", "speaker",
    "dataset", "split", "duration", "truncated",
)  # fmt: skip


@dataclass(frozen=True)
class RoutingFilter:
    """Empty means any. text is looked for in id, reference, prediction and speaker; errors keeps only wrong answers."""

    split: str = ""
    dataset: str = ""
    task: str = ""
    text: str = ""
    errors: bool = False


@dataclass(frozen=True)
class RoutingPage:
    """rows: at most 50 utterance-task pairs; total: how many the filter left; page counts from 1."""

    rows: pd.DataFrame
    total: int
    page: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE_ROWS))


@dataclass(frozen=True)
class RoutingFiles:
    """Readable files, the columns that they have, and a sentence for each file that cannot be read."""

    paths: tuple[str, ...]
    columns: frozenset[str]
    problems: tuple[str, ...] = ()


def routing_files(paths: Sequence[Path]) -> RoutingFiles:
    """Look at each file's schema; a damaged or foreign one is named and left out."""
    good, columns, problems = [], set(), []
    for path in paths:
        try:
            names = set(pq.read_schema(path).names)
        except (OSError, pa.ArrowInvalid, pa.ArrowException):
            problems.append(f"routing/{path.name} is not a readable Parquet file: make it again")
            continue
        if missing := [name for name in NEEDED if name not in names]:
            problems.append(f"routing/{path.name} has no column {missing[0]!r}: make it again")
            continue
        good.append(str(path))
        columns |= names
    return RoutingFiles(tuple(good), frozenset(columns), tuple(problems))


def facets(files: RoutingFiles) -> dict[str, list[str]]:
    """Values of split, dataset and task that occur, each sorted; columns that are missing give none."""
    with _connection() as connection:
        return {name: _distinct(connection, files, name) if name in files.columns else [] for name in FILTERS}


def page_of(files: RoutingFiles, wanted: RoutingFilter, page: int) -> RoutingPage:
    """One page of utterance-task pairs in a fixed order; a page behind the last one gives the last."""
    where, values = _conditions(files, wanted)
    with _connection() as connection:
        source = "read_parquet(?, union_by_name = true)"
        count = f"SELECT count(*) FROM {source} WHERE {where}"
        total = connection.execute(count, [list(files.paths), *values]).fetchone()[0]
        page = min(max(1, page), max(1, -(-total // PAGE_ROWS)))
        columns = ", ".join(name if name in files.columns else f"NULL AS {name}" for name in SHOWN)
        top = "list_position(alpha, list_max(alpha)) - 1 AS top_encoder_layer"
        query = (
            f"SELECT {columns}, {top} FROM {source} WHERE {where} "
            f"ORDER BY utterance, task{', prompt' if 'prompt' in files.columns else ''} LIMIT {PAGE_ROWS} OFFSET ?"
        )
        rows = connection.execute(query, [list(files.paths), *values, (page - 1) * PAGE_ROWS]).df()
    return RoutingPage(rows, total, page)


def utterance(files: RoutingFiles, identifier: str) -> pd.DataFrame:
    """All rows (task x prompt x stage) of one utterance; empty where it is not logged."""
    with _connection() as connection:
        query = "SELECT * FROM read_parquet(?, union_by_name = true) WHERE utterance = ? ORDER BY task, stage LIMIT 200"
        return connection.execute(query, [list(files.paths), identifier]).df()


def utterances(files: RoutingFiles, identifiers: Sequence[str]) -> pd.DataFrame:
    """The encoder rows (one a task and prompt) of some utterances, by utterance and task."""
    with _connection() as connection:
        query = (
            "SELECT * FROM read_parquet(?, union_by_name = true) WHERE stage = 'encoder' "
            "AND list_contains(?, utterance) ORDER BY utterance, task LIMIT 1000"
        )
        return connection.execute(query, [list(files.paths), list(identifiers)]).df()


def connection() -> duckdb.DuckDBPyConnection:
    """For other Parquet files of a run, under the same bounds."""
    return _connection()


def _connection() -> duckdb.DuckDBPyConnection:
    """In memory, one thread, bounded: queries of several visitors run side by side with the model."""
    return duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB"})


def _distinct(connection, files: RoutingFiles, name: str) -> list[str]:
    source = "read_parquet(?, union_by_name = true)"
    query = f"SELECT DISTINCT {name} FROM {source} WHERE {name} IS NOT NULL ORDER BY 1 LIMIT {MOST_FACETS}"
    return [str(row[0]) for row in connection.execute(query, [list(files.paths)]).fetchall() if str(row[0])]


def _conditions(files: RoutingFiles, wanted: RoutingFilter) -> tuple[str, list]:
    parts, values = ["stage = 'encoder'"], []
    for name in FILTERS:
        if value := getattr(wanted, name):
            parts.append(f"CAST({name} AS VARCHAR) = ?" if name in files.columns else "false")
            values += [value] if name in files.columns else []
    if wanted.text.strip():
        present = [name for name in TEXT_COLUMNS if name in files.columns]
        parts.append("(" + " OR ".join(f"contains(lower(CAST({name} AS VARCHAR)), ?)" for name in present) + ")")
        values += [wanted.text.strip().lower()] * len(present)
    if wanted.errors:
        present = [name for name in ("error", "errors") if name in files.columns]
        tests = [f"coalesce(try_cast({name} AS DOUBLE), 0) > 0" for name in present]
        parts.append("(" + " OR ".join(tests) + ")" if tests else "false")
    return " AND ".join(parts), values
