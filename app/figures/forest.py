"""Forest plots: one row an estimate, its interval as a line, its name and numbers written above it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import plotly.graph_objects as go

from app.figures.base import Figure, legend_below, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import Theme, class_symbol, task_colour

MOST_ROWS = 100
LINE_HEIGHT, GAP, FRAME = 16, 28, 64
LINE, MOST_LINES = 44, 3  # characters that fit on a phone; a longer name is cut, the table has it whole


@dataclass(frozen=True)
class Estimate:
    """One row. low, high: None where there is no interval. group: told apart by colour and symbol, named below."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    group: str = ""


@remembered
def forest(
    rows: Sequence[Estimate], theme: Theme, *, title: str = "", reference: float | None = 0.0, signed: bool = True,
    digits: int = 3, span: tuple[float, float] | None = None,
) -> go.Figure:  # fmt: skip
    """Rows from top to bottom in the order given; `reference` is a dashed line (None: none); `span` fixes the axis.

    Names stand inside the figure, so that it is as readable on a phone. Raises ValueError for over 100 rows.
    """
    if len(rows) > MOST_ROWS:
        raise ValueError(f"{len(rows)} rows are too many for one forest plot: at most {MOST_ROWS}")
    bare, digits = all(row.low is None for row in rows), enough_digits(rows, digits)
    names = [written(row, signed, digits, bare) for row in rows]
    row_height = GAP + LINE_HEIGHT * max((name.count("<br>") + 1 for name in names), default=1)
    groups = list(dict.fromkeys(row.group for row in rows))
    figure = Figure()
    for place, group in enumerate(groups):
        _draw(figure, [(i, row) for i, row in enumerate(rows) if row.group == group], place, theme, signed, digits)
    styled(figure, theme, FRAME + row_height * len(rows) + (36 if len(groups) > 1 else 0), xaxis_title=title)
    if reference is not None:
        figure.add_vline(x=reference, line={"color": theme.muted, "dash": "dash", "width": 1})
    for index, text in enumerate(names):
        figure.add_annotation(
            text=text, x=0, xref="paper", xanchor="left", y=index - 9 / row_height, yanchor="bottom", showarrow=False,
            align="left", font={"size": 12, "color": theme.text}, bgcolor=theme.surface, borderpad=0,
        )  # fmt: skip
    figure.update_yaxes(range=[len(rows) - 0.7, -0.95], showticklabels=False, showgrid=False, zeroline=False)
    figure.update_xaxes(range=list(span or reach(rows, reference)))
    if len(groups) > 1:
        legend_below(figure, theme)
        figure.update_layout(legend={"y": -44 / (row_height * len(rows))})
    return fitted(figure)


def _draw(figure: go.Figure, rows: list[tuple[int, Estimate]], place: int, theme: Theme, signed: bool, digits: int):
    colour = task_colour(place, theme)
    above = [row.high - row.value if row.high is not None else 0 for _, row in rows]
    below = [row.value - row.low if row.low is not None else 0 for _, row in rows]
    figure.add_scatter(
        x=[row.value for _, row in rows], y=[index for index, _ in rows], mode="markers",
        name=literal(rows[0][1].group), marker={"color": colour, "size": 9, "symbol": class_symbol(place)},
        error_x={"type": "data", "array": above, "arrayminus": below, "color": colour, "thickness": 1.8, "width": 4},
        customdata=[f"{literal(row.label, 60)}: {told(row, signed, digits)}" for _, row in rows],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def written(row: Estimate, signed: bool, digits: int, bare: bool) -> str:
    """Name and numbers as the figure writes them, in lines that fit on a phone."""
    numbers = f"<b>{told(row, signed, digits, bare)}</b>"
    lines = textwrap.wrap(" ".join(row.label.split()), LINE, max_lines=MOST_LINES, placeholder=" …") or [""]
    whole = len(lines) == 1 and len(lines[0]) + len(numbers) - 7 <= LINE + 6
    return "<br>".join(literal(line, LINE) for line in lines) + (": " if whole else ":<br>") + numbers


def told(row: Estimate, signed: bool = True, digits: int = 3, bare: bool = False) -> str:
    """`+0.120 [0.050, 0.200]`; bare: the value alone, where no row has an interval."""
    sign = "+" if signed else ""
    value = f"{row.value:{sign}.{digits}f}"
    if row.low is None or row.high is None:
        return value if bare else f"{value} (no interval)"
    return f"{value} [{row.low:{sign}.{digits}f}, {row.high:{sign}.{digits}f}]"


def enough_digits(rows: Sequence[Estimate], digits: int) -> int:
    """More than `digits` behind the point where all numbers are so small that fewer than two would be seen."""
    values = [abs(v) for row in rows for v in (row.value, row.low, row.high) if v is not None and isfinite(v)]
    largest = max(values, default=0.0)
    return max(digits, min(9, 1 - floor(log10(largest)))) if largest > 0 else digits


def reach(rows: Sequence[Estimate], reference: float | None) -> tuple[float, float]:
    """The axis: all values and intervals, the reference too, with a little air."""
    values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None and isfinite(v)]
    values += [] if reference is None else [reference]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05
    return low - air, high + air


def described(rows: Sequence[Estimate], title: str, most: int = 12) -> str:
    """The figure in words, for those who do not see it."""
    digits = enough_digits(rows, 3)
    told_rows = "; ".join(f"{literal(row.label, 60)} {told(row, digits=digits)}" for row in rows[:most])
    return f"{title}. {told_rows}{' and more, see the table' if len(rows) > most else ''}"
