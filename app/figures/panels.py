"""Curves over layers or steps, in panels one above the other on one axis: lines with bands, bars, reference lines."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.base import Figure, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import Theme, class_symbol, line_style, task_colour
from app.tables import layer_names, thinned

LINE, BAR, LEVEL = "line", "bar", "level"
PANEL_HEIGHT, FRAME, MOST_TICKS = 150, 70, 30


@dataclass(frozen=True)
class Series:
    """One curve. x, values: alike in length; None is a gap. low, high: the interval of each point, or empty.

    kind: `line` (interval as a band), `bar` (interval as a whisker), `level` (one value, drawn across).
    """

    name: str
    x: tuple[float, ...]
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    kind: str = LINE


@dataclass(frozen=True)
class Panel:
    """One set of axes. title: what its y axis is, with the unit. span: fixed range of y, None to fit."""

    title: str
    series: tuple[Series, ...]
    span: tuple[float, float] | None = None


@remembered
def panels(
    drawn: Sequence[Panel], theme: Theme, *, x_title: str = "layer", layers: int = 0, height: int = PANEL_HEIGHT,
    legend: bool = True, whole: bool = False,
) -> go.Figure:  # fmt: skip
    """`layers`: how many states the x axis names (`input`, 1, ...); 0 leaves plotly numbers, `whole` ones where asked.

    A series keeps colour, dash and symbol in all panels; the legend below names each once.
    """
    figure = make_subplots(
        figure=Figure(), rows=len(drawn), cols=1, shared_xaxes=True,
        vertical_spacing=min(0.09, 0.4 / max(1, len(drawn))),
        subplot_titles=[literal(panel.title, 70) for panel in drawn],
    )  # fmt: skip
    names = list(dict.fromkeys(series.name for panel in drawn for series in panel.series))
    said: set[str] = set()
    for row, panel in enumerate(drawn, 1):
        for series in panel.series:
            _draw(figure, series, row, names.index(series.name), theme, series.name not in said)
            said.add(series.name)
        if panel.span:
            figure.update_yaxes(range=list(panel.span), row=row, col=1)
    total = FRAME + height * len(drawn) + 24 * -(-len(names) // 3)
    styled(figure, theme, total, barmode="group", margin={"l": 8, "r": 8, "t": 26, "b": 8})
    figure.update_annotations(font={"size": 12, "color": theme.text}, x=0, xanchor="left")
    figure.update_xaxes(showgrid=False)
    figure.update_xaxes(title_text=x_title, row=len(drawn), col=1)
    if layers:
        ticks = thinned(layers, MOST_TICKS if layers <= MOST_TICKS else 13).tolist()
        texts = [layer_names(layers)[tick] for tick in ticks]
        figure.update_xaxes(tickmode="array", tickvals=ticks, ticktext=texts, tickangle=0, range=[-0.6, layers - 0.4])
    elif whole:
        figure.update_xaxes(dtick=1)
    below = {"orientation": "h", "yanchor": "top", "y": -60 / (total - FRAME), "x": 0, "font": {"color": theme.text}}
    return fitted(figure.update_layout(showlegend=legend and len(names) > 1, legend=below))


def _draw(figure: go.Figure, series: Series, row: int, place: int, theme: Theme, named: bool) -> None:
    colour = task_colour(place, theme)
    shared = {"name": literal(series.name), "legendgroup": series.name, "showlegend": named}
    hover = f"{literal(series.name)}: %{{y:.4f}}<extra></extra>"
    x, y = list(series.x), list(series.values)
    if series.kind == LEVEL:
        line = {"color": colour, "dash": line_style(place), "width": 1.5}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hovertemplate=hover, row=row, col=1, **shared)
        return
    known = len(series.low) == len(x) and len(series.high) == len(x)
    if series.kind == BAR:
        whiskers = None
        if known:
            whiskers = {
                "type": "data", "array": _gaps(series.high, y), "arrayminus": _gaps(y, series.low),
                "color": theme.text, "thickness": 1.2, "width": 3,
            }  # fmt: skip
        figure.add_bar(x=x, y=y, marker={"color": colour}, error_y=whiskers, hovertemplate=hover, row=row, col=1,
                       **shared)  # fmt: skip
        return
    if known:
        _band(figure, series, row, colour)
    figure.add_scatter(
        x=x, y=y, mode="lines+markers", line={"color": colour, "dash": line_style(place), "width": 2},
        marker={"size": 7, "symbol": class_symbol(place), "color": colour}, hovertemplate=hover, row=row, col=1,
        **shared,
    )  # fmt: skip


def _band(figure: go.Figure, series: Series, row: int, colour: str) -> None:
    inside = [i for i, pair in enumerate(zip(series.low, series.high, strict=True)) if None not in pair]
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    edge |= {"legendgroup": series.name, "row": row, "col": 1}
    x = [series.x[i] for i in inside]
    figure.add_scatter(x=x, y=[series.high[i] for i in inside], **edge)
    figure.add_scatter(x=x, y=[series.low[i] for i in inside], fill="tonexty", fillcolor=faded(colour), **edge)


def _gaps(upper: Sequence[float | None], lower: Sequence[float | None]) -> list[float]:
    return [0.0 if None in (u, w) else max(0.0, u - w) for u, w in zip(upper, lower, strict=True)]


def faded(colour: str, opacity: float = 0.18) -> str:
    """`#rrggbb` as a see-through colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
