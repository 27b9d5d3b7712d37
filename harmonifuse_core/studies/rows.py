"""The rows of a study on disk: each cell's own files while it is unfinished, three Parquet tables when it is whole.

A cell is written to two files, each whole or not there, its JSON last: a process that is killed loses the cell it was
at, and nothing else. Cells may be written by several processes at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict
from harmonifuse_core.routing import whole_file
from harmonifuse_core.runs import RunError, StudyFolder, write_json
from harmonifuse_core.studies.plan import Cell

CELL = pa.schema(
    [(n, pa.string()) for n in ("cell", "system", "config_hash", "tasks", "losses", "failed", "date", "reused")]
    + [(n, pa.int64()) for n in ("seed", "steps", "parameters", "trainable", "threads")]
    + [(n, pa.float64()) for n in ("train_seconds", "train_cpu_seconds", "evaluate_seconds", "speech_seconds")]
)
_OWNER = [("cell", pa.string()), ("system", pa.string()), ("seed", pa.int64())]
_SCORED = [*_OWNER, ("evaluation", pa.string()), ("task", pa.string())]
UTTERANCE = pa.schema(
    [*_SCORED, *((n, pa.string()) for n in ("utterance", "speaker", "dataset")), ("errors", pa.int32()),
     ("words", pa.int32()), ("correct", pa.bool_()), ("reference", pa.string()), ("prediction", pa.string())]
)  # fmt: skip
ALPHA = pa.schema(
    [*_SCORED, ("stage", pa.string()), *((n, pa.list_(pa.float32())) for n in ("alpha", "share", "bias", "alpha_std")),
     ("utterances", pa.int64())]
)  # fmt: skip
SCHEMAS = {"cells": CELL, "utterances": UTTERANCE, "alphas": ALPHA}
READ_TRIES = 5  # another process may move a cell's files into the tables while they are read


@dataclass(frozen=True)
class StudyRows:
    """cells: one row a cell. utterances: one an utterance, evaluation, task and cell. alphas: one a cell, evaluation,
    task and stage, lists of L1 weights, layer 0 first."""

    cells: pd.DataFrame
    utterances: pd.DataFrame
    alphas: pd.DataFrame

    def of(self, keys: dict[str, str]) -> "StudyRows":
        """The rows of these cells, {name: config hash}; those of another hash are left out."""
        known = [c for c, key in zip(self.cells["cell"], self.cells["config_hash"], strict=True) if keys.get(c) == key]
        frames = {name: getattr(self, name) for name in SCHEMAS}
        return StudyRows(**{name: f[f["cell"].isin(known)].reset_index(drop=True) for name, f in frames.items()})


def _frame(rows: Sequence[dict], kind: str) -> pd.DataFrame:
    return pa.Table.from_pylist(list(rows), SCHEMAS[kind]).to_pandas()


def write_cell(folder: StudyFolder, cell: dict, utterances: Sequence[dict], alphas: Sequence[dict]):
    """One finished cell; the owner columns of the rows are filled in from `cell`."""
    owner = {name: cell[name] for name, _ in _OWNER}
    with whole_file(folder.part(cell["cell"], ".parquet")) as part:
        pq.write_table(pa.Table.from_pylist([owner | row for row in utterances], UTTERANCE), part, compression="zstd")
    write_json(folder.part(cell["cell"], ".json"), {"cell": cell, "alphas": [owner | row for row in alphas]})


def reuse_cell(folder: StudyFolder, cell: Cell, donors: Sequence[StudyFolder]) -> str:
    """Copy the rows of a finished cell of the same key (config, seed, evaluations), whatever its study calls it.

    Returns "FOLDER/CELL", or "" where no donor has one. Its costs are those of the one training that took place.
    """
    for donor in donors:
        rows = read_rows(donor)
        found = rows.cells.loc[(rows.cells["config_hash"] == cell.key) & (rows.cells["seed"] == cell.seed), "cell"]
        if len(found):
            name, tables = found.iloc[0], {}
            for kind, schema in SCHEMAS.items():
                frame = getattr(rows, kind)
                mine = pa.Table.from_pandas(frame[frame["cell"] == name], schema, preserve_index=False)
                tables[kind] = mine.to_pylist()
            owner = {"cell": cell.name, "system": cell.system.name, "seed": cell.seed}
            utterances, alphas = ([row | owner for row in tables[kind]] for kind in ("utterances", "alphas"))
            source = f"{donor.path.name}/{name}"
            write_cell(folder, tables["cells"][0] | owner | {"reused": source}, utterances, alphas)
            return source
    return ""


def read_rows(folder: StudyFolder) -> StudyRows:
    """All finished cells of a study, from tables and parts. Raises RunError for a damaged file."""
    for attempt in range(READ_TRIES):
        try:
            return _read(folder)
        except FileNotFoundError:
            if attempt == READ_TRIES - 1:
                raise
        except (pa.ArrowInvalid, json.JSONDecodeError, KeyError) as error:
            raise RunError(f"{folder.path}: a file of its rows is damaged ({error}); delete it and run again") from None
    raise AssertionError


def _read(folder: StudyFolder) -> StudyRows:
    names = folder.part_names()  # before the tables: what is moved in between stands twice, not nowhere
    parts = [json.loads(folder.part(name, ".json").read_text(encoding="utf-8")) for name in names]
    fresh = {
        "cells": [_frame([p["cell"] for p in parts], "cells")],
        "alphas": [_frame([row for p in parts for row in p["alphas"]], "alphas")],
        "utterances": [_frame([], "utterances")]
        + [pq.read_table(folder.part(name, ".parquet"), schema=UTTERANCE).to_pandas() for name in names],
    }
    tables = {}
    for kind, frames in fresh.items():
        if folder.rows("cells").is_file():
            old = pq.read_table(folder.rows(kind), schema=SCHEMAS[kind]).to_pandas()
            frames = [old[~old["cell"].isin(names)], *frames]
        tables[kind] = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    known = set(tables["cells"]["cell"])
    return StudyRows(**{kind: t[t["cell"].isin(known)].reset_index(drop=True) for kind, t in tables.items()})


def consolidate(folder: StudyFolder, rows: StudyRows, order: Sequence[str]):
    """Put a whole study's rows into three tables, cells in `order`, and take the parts away; the index comes last."""
    place = {name: i for i, name in enumerate(order)}
    for kind in ("utterances", "alphas", "cells"):
        frame = getattr(rows, kind)
        frame = frame.sort_values("cell", key=lambda column: column.map(place), kind="stable")
        with whole_file(folder.rows(kind)) as part:
            table = pa.Table.from_pandas(frame, SCHEMAS[kind], preserve_index=False)
            pq.write_table(table.replace_schema_metadata(None), part, compression="zstd")
    for name in folder.part_names():
        for suffix in (".json", ".parquet"):
            folder.part(name, suffix).unlink(missing_ok=True)
    if folder.parts.is_dir() and not any(folder.parts.iterdir()):
        folder.parts.rmdir()


def read_table(folder: StudyFolder) -> AnalysisResult:
    """The tables and verdicts that the study command wrote. Raises RunError where there are none."""
    try:
        stored = json.loads(folder.table_file.read_text(encoding="utf-8"))
        tables = tuple(Table(key, t["definition"], tuple(t["rows"])) for key, t in stored["tables"].items())
        verdicts = tuple(Verdict(**v) for v in stored["verdicts"])
        return AnalysisResult(
            stored["name"], stored["question"], tables, verdicts, stored["utterances"], stored["speakers"]
        )
    except FileNotFoundError:
        raise RunError(
            f"{folder.path} has no table yet: `python -m harmonifuse_core.study {folder.study_file} --table-only`"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RunError(f"{folder.table_file} is damaged ({error}); make it again with --table-only") from None
