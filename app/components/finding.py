"""A result file on a page: verdicts first, then figure, table, exact definition and export; or what is missing."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import state
from app.components import chart, plain, start
from app.components.closed import closed
from app.components.export import downloads
from app.figures.forest import MOST_ROWS, Estimate, described, forest
from app.findings import Finding
from app.services import result_files
from harmonifuse_core.analysis.result import Verdict
from harmonifuse_core.runs import RunError, RunFolder

PAIR = 2  # verdict cards side by side


def read(key: str, reader: Callable[..., Finding | None], *arguments) -> tuple[Finding | None, bool]:
    """The finding, and whether its file is damaged (said on the page already)."""
    try:
        return reader(*arguments), False
    except RunError as error:
        plain.problem(f"damaged-{key}", "This result cannot be read.", str(error), "The command below makes it again.")
        return None, True


def analysis(run: RunFolder, name: str, title: str, why: str) -> Finding | None:
    """The run's analysis, or None after saying what is missing, with the command that makes it."""
    found, _ = read(name, result_files.analysis, run, name)
    if found is None:
        plain.empty(title, why)
        start.analyse(run, name)
    return found


def verdicts(key: str, found: Sequence[Verdict]) -> None:
    """Cards in pairs: what it is about, the verdict in words, the numbers behind it. All of it plain text."""

    def card(place: int, verdict: Verdict) -> None:
        with st.container(key=f"plain-verdict-{key}-{place}", border=True, gap="xsmall"):
            st.text(verdict.about)
            verdict_and_evidence(f"{key}-{place}", verdict.verdict, verdict.evidence)

    in_pairs(found, card)


def in_pairs(items: Sequence, show: Callable) -> None:
    """`show(place, item)` for each item, two side by side."""
    for first in range(0, len(items), PAIR):
        for place, column in enumerate(st.columns(PAIR, gap="small"), first):
            if place < len(items):
                with column:
                    show(place, items[place])


def verdict_and_evidence(key: str, verdict: str, evidence: str, source: str = "") -> None:
    """The verdict in words, what it goes back to, and behind a line the numbers."""
    with st.container(key=f"plain-verdictword-{key}"):
        st.text(verdict[:1].upper() + verdict[1:])
    if source:
        st.text(f"Source: {source}")
    with st.expander("The numbers behind it"), st.container(key=f"plain-evidence-{key}"):
        st.text(evidence)


def basis(key: str, finding: Finding) -> None:
    """On how much the result rests, and how it was made."""
    result, record = finding.result, finding.record
    parts = [f"{result.utterances:,} utterances, {result.speakers:,} speakers", when(record.get("date"))]
    with st.container(key=f"plain-basis-{key}", gap="xsmall"):
        st.text(" · ".join(parts))
        if result.caution:
            st.text(f"Mind: {result.caution}.")
    if command := record.get("command"):
        with st.expander("The command that made this"):
            st.code(str(command), language=None, wrap_lines=True)


def when(date: object) -> str:
    """An ISO date of a record to the minute, in UTC; what is none stays as it stands."""
    try:
        return f"{datetime.fromisoformat(str(date)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return str(date or "date unknown")


def table(
    key: str, stem: str, rows: pd.DataFrame, definition: str, figures: Mapping[str, go.Figure] | None = None,
    digits: int = 4,
) -> None:  # fmt: skip
    """Rows as they stand in the file, export of table and figures, and exactly what the numbers are."""
    shown = {c: st.column_config.NumberColumn(format=f"%.{digits}f") for c in rows.columns if _fraction(rows[c])}

    def behind() -> None:
        st.dataframe(rows, hide_index=True, height=min(360, 40 + 35 * len(rows)), column_config=shown)
        with st.container(key=f"plain-definition-{key}"):
            st.text(definition or "No definition is stored beside this table.")

    closed(f"Table ({len(rows):,} row{'s'[: len(rows) != 1]}) and exact definition", f"table-{key}", behind)
    downloads(key, stem, rows, figures)


def _fraction(column: pd.Series) -> bool:
    return pd.api.types.is_float_dtype(column) and not (column.dropna() % 1 == 0).all()


def forest_section(
    key: str, title: str, rows: Sequence[Estimate], axis: str, figures: dict[str, go.Figure], **options
) -> None:
    """A forest plot of the first 100 rows, kept in `figures` for the export; says so where it has nothing to show."""
    if title:
        st.subheader(title, anchor=False)
    if not rows:
        st.caption("Nothing to draw: the table has no value for this choice.")
        return
    if len(rows) > MOST_ROWS:
        st.caption(f"The first {MOST_ROWS} of {len(rows)} rows are drawn; the table has all of them.")
    name = title or axis
    figures[name] = figure = forest(rows[:MOST_ROWS], state.theme(), title=axis, **options)
    chart.show(figure, key, described(rows, name))


def picked(label: str, options: Sequence[str], key: str, default: str | None = None, shown=str) -> str | None:
    """One of a few options side by side, or from a list where they are many; None where there is none."""
    if not options:
        return None
    first = default if default in options else options[0]
    if key not in st.session_state or st.session_state[key] not in options:
        st.session_state[key] = first
    if len(options) <= 6 and sum(len(shown(o)) for o in options) <= 60:
        return st.segmented_control(label, options, key=key, format_func=shown, required=True)
    return st.selectbox(label, options, key=key, format_func=shown)


def how_to_read(text: str) -> None:
    with st.expander("How to read this"):
        st.markdown(text)
