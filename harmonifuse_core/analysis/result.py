"""What an analysis finds: tables with their exact definitions, verdicts with their evidence; written to and read from
`analysis/NAME.json` (the result) and `analysis/NAME.parquet` (the raw rows) of a run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from harmonifuse_core.bootstrap import FEW_SPEAKERS, Interval
from harmonifuse_core.routing import whole_file
from harmonifuse_core.runs import RunError, RunFolder, write_json

KIND = "analysis"


@dataclass(frozen=True)
class Table:
    """definition: exactly what the numbers are, as a sentence. rows: {column: value}; an interval of column `x` stands
    in `x_low` and `x_high`; every row has `n` (utterances) and, where known, `speakers`."""

    name: str
    definition: str
    rows: tuple[dict, ...]


@dataclass(frozen=True)
class Verdict:
    """about: e.g. "encoder / ser". verdict: a few words. evidence: a sentence with the numbers."""

    about: str
    verdict: str
    evidence: str


@dataclass(frozen=True)
class AnalysisResult:
    """name: of the analysis and its files. question: one sentence. utterances, speakers: how many were analysed."""

    name: str
    question: str
    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...] = ()
    utterances: int = 0
    speakers: int = 0

    def table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"{self.name} has no table {name!r}; it has {', '.join(t.name for t in self.tables)}")

    @property
    def caution(self) -> str:
        """What the number of speakers takes from every interval and verdict; empty where it suffices."""
        if self.speakers == 1:
            return "one speaker only: intervals and verdicts hold for this speaker, and say nothing about others"
        few = 1 < self.speakers < FEW_SPEAKERS
        return f"{self.speakers} speakers only: intervals are likely too narrow, verdicts too sure" if few else ""

    def as_dict(self) -> dict:
        """Ready for JSON: plain numbers, and None where a number is not defined."""
        tables = {t.name: {"definition": t.definition, "rows": [plain(row) for row in t.rows]} for t in self.tables}
        return {
            "name": self.name, "question": self.question, "utterances": self.utterances, "speakers": self.speakers,
            "caution": self.caution, "tables": tables, "verdicts": [asdict(v) for v in self.verdicts],
        }  # fmt: skip


def plain(value):
    """numpy scalars and arrays, tuples and NaN as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value):
    """Floats to 6 significant digits: more means nothing here, and doubles the file."""
    if isinstance(value, dict):
        return {k: short(v) for k, v in value.items()}
    if isinstance(value, list):
        return [short(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def columns_of(name: str, interval: Interval) -> dict:
    """`name`, `name_low` and `name_high` of a table's row."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def save_result(run: RunFolder, result: AnalysisResult, rows: pd.DataFrame, record: Mapping):
    """Write both files, each old or new, never half; the JSON last, so that it never stands without its rows.

    record: what made it (command, date, seed, selections, resamples, environment).
    """
    write_rows(run.part(KIND, f"{result.name}.parquet"), rows)
    write_json(run.part(KIND, f"{result.name}.json"), short(result.as_dict()) | plain(record))


def write_rows(path, rows: pd.DataFrame):
    with whole_file(path) as part:
        rows.to_parquet(part, index=False, compression="zstd")


def read_result(run: RunFolder, name: str) -> AnalysisResult:
    """Raises RunError where the run has no such analysis or its file is damaged."""
    stored = run.read_json(KIND, f"{name}.json")
    try:
        tables = tuple(Table(key, t["definition"], tuple(t["rows"])) for key, t in stored["tables"].items())
        verdicts = tuple(Verdict(**v) for v in stored["verdicts"])
        return AnalysisResult(
            stored["name"], stored["question"], tables, verdicts, stored["utterances"], stored["speakers"]
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.path}: analysis {name} is damaged ({error}); make it again") from None


def read_rows(run: RunFolder, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The raw rows behind an analysis, one an utterance and condition."""
    path = run.part(KIND, f"{name}.parquet")
    if not path.is_file():
        raise RunError(f"{run.path} has no rows of analysis {name}: run `python -m harmonifuse_core.analyse` with it")
    return pd.read_parquet(path, columns=list(columns) if columns else None)
