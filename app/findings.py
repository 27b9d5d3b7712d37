"""Results of analyses, probes and studies as data frames and as rows of figures. Pure.

A table of a result becomes a frame with exactly its numbers; `None` becomes a gap. Nothing is computed anew here.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from app.figures.forest import Estimate
from app.figures.panels import LINE, Series
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict
from harmonifuse_core.runs import RunError

LOW, HIGH = "_low", "_high"


@dataclass(frozen=True)
class Finding:
    """One result file, readable: the result, its tables as frames, and how it was made.

    record: command, date, seed and the like, as stored. problem is never set beside a result.
    """

    result: AnalysisResult
    frames: Mapping[str, pd.DataFrame]
    record: Mapping[str, object]

    def frame(self, name: str) -> pd.DataFrame:
        """Empty where the result has no such table."""
        return self.frames.get(name, pd.DataFrame())

    def definition(self, name: str) -> str:
        return next((table.definition for table in self.result.tables if table.name == name), "")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return self.result.verdicts


def finding_of(stored: Mapping, name: str) -> Finding:
    """What `analysis/NAME.json`, `probes/NAME.json` and a study's `table.json` hold. Raises RunError where damaged."""
    try:
        tables = tuple(Table(str(key), str(t["definition"]), tuple(t["rows"])) for key, t in stored["tables"].items())
        verdicts = tuple(Verdict(*(str(v[k]) for k in ("about", "verdict", "evidence"))) for v in stored["verdicts"])
        result = AnalysisResult(
            str(stored["name"]), str(stored["question"]), tables, verdicts, int(stored["utterances"]),
            int(stored["speakers"]),
        )  # fmt: skip
        frames = {table.name: frame_of(table.rows) for table in tables}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{name} is damaged ({type(error).__name__}: {error}); make it again") from None
    record = {key: stored[key] for key in stored if key not in ("tables", "verdicts")}
    return Finding(result, frames, record)


def frame_of(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Rows as a frame; lists and dicts inside a cell as JSON text, so that every export can hold them."""
    table = pd.DataFrame(list(rows))
    for column in table.columns:
        if any(isinstance(value, (list, dict)) for value in table[column]):
            table[column] = [json.dumps(v) if isinstance(v, (list, dict)) else v for v in table[column]]
        elif table[column].isna().all():
            table[column] = table[column].astype(float)
    return table


def value_of(row, column: str) -> float | None:
    """A number of a row, None where it is missing or not finite."""
    value = row.get(column)
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def estimates(
    table: pd.DataFrame, column: str, label: Callable[[Mapping], str], group: Callable[[Mapping], str] | None = None,
    limits: str = "",
) -> list[Estimate]:  # fmt: skip
    """Rows of a forest plot from `column`, `column_low` and `column_high`; rows without a value are left out.

    limits: another column whose `_low` and `_high` are the interval.
    """
    found, limits = [], limits or column
    for row in table.to_dict("records"):
        value = value_of(row, column)
        if value is not None:
            low, high = value_of(row, f"{limits}{LOW}"), value_of(row, f"{limits}{HIGH}")
            found.append(Estimate(label(row), value, low, high, group(row) if group else ""))
    return found


def curve(table: pd.DataFrame, column: str, name: str, x: str = "layer", kind: str = LINE, band: bool = True) -> Series:
    """One curve from the rows of a table, with its interval where the table has one and `band` is set."""
    rows = table.sort_values(x).to_dict("records")
    limits = {end: tuple(value_of(row, f"{column}{end}") for row in rows) for end in (LOW, HIGH)}
    known = band and any(value is not None for value in limits[LOW])
    return Series(
        name, tuple(float(row[x]) for row in rows), tuple(value_of(row, column) for row in rows),
        limits[LOW] if known else (), limits[HIGH] if known else (), kind,
    )  # fmt: skip


def only(table: pd.DataFrame, **wanted) -> pd.DataFrame:
    """Rows where each named column equals its value; None asks for a gap. No rows where a column is missing."""
    for column, value in wanted.items():
        if column not in table.columns:
            return table.iloc[:0]
        table = table[table[column].isna() if value is None else table[column] == value]
    return table


def values(table: pd.DataFrame, column: str) -> list[str]:
    """The different values of a column in their order of appearance; gaps left out."""
    return [] if column not in table.columns else list(dict.fromkeys(table[column].dropna().astype(str)))
