"""What all figures share: layout in the theme's colours, literal labels, heatmaps with their values in the cells."""

import base64
import html
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go

from app.palette import Theme, legible_on, scale_colour

MOST_CELLS = 200  # along one side
WIDEST_WITH_VALUES = 25
LABEL_LENGTH = 40
AXES = ("xaxis", "yaxis")
FONT = '"Source Sans", system-ui, sans-serif'


def literal(text: str, most: int = LABEL_LENGTH) -> str:
    """A label that plotly shows letter by letter: it would read tags and links otherwise."""
    text = " ".join(str(text).split())
    return html.escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)


class Figure(go.Figure):
    """A plotly figure that goes out with its look written into the layout, and without a template.

    Streamlit hands every new chart to plotly twice, the second time as a copy. Plotly draws only what differs: to it a
    copied template always does, copied lists do not where `datarevision` is the same, copied typed arrays do again. As
    go.Figure gives them out, the browser would draw every chart twice.
    """

    def to_dict(self) -> dict:
        whole = _listed(super().to_dict())
        layout = whole["layout"]
        look = layout.pop("template", {}).get("layout", {})
        axes = {kind: look.pop(kind, {}) for kind in AXES}
        whole["layout"] = _under(look, layout)
        for kind, axis in axes.items():
            for name in {kind, *(name for name in layout if name.startswith(kind))}:
                whole["layout"][name] = _under(axis, layout.get(name, {}))
        return whole


def _listed(value):
    """The same with lists of numbers in place of plotly's encoded arrays; tables of cells stay encoded."""
    if isinstance(value, dict):
        if "bdata" in value and "shape" not in value:
            return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list) and _deep(value) else value


def _deep(values: list) -> bool:
    return any(isinstance(value, dict) for value in values)


def _under(look: Mapping, own: Mapping) -> dict:
    """What `own` says, and what only `look` says."""
    both = {name: _under(look[name], own[name]) for name in look.keys() & own.keys() if isinstance(look[name], Mapping)}
    return {**look, **own, **both}


def styled(figure: go.Figure, theme: Theme, height: int, **layout) -> go.Figure:
    """The calm look: no background of its own, little grid, room for labels only where they are.

    What all figures share is a template: plotly sets it at once, and takes long for as many single updates.
    """
    figure.layout.template = _look(theme)
    return figure.update_layout(height=height, datarevision=1, **layout)


@lru_cache(maxsize=4)
def _look(theme: Theme) -> go.layout.Template:
    axis = {
        "gridcolor": theme.grid, "zerolinecolor": theme.grid, "linecolor": theme.grid, "ticks": "", "zerolinewidth": 2,
        "tickfont": {"color": theme.text}, "title": {"font": {"color": theme.muted, "size": 12}, "standoff": 6},
        "exponentformat": "power",
    }  # fmt: skip
    return go.layout.Template(layout={
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "showlegend": False, "dragmode": False,
        "font": {"family": FONT, "size": 13, "color": theme.text}, "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hoverlabel": {"bgcolor": theme.surface, "align": "left", "font": {"color": theme.text}},
        "hovermode": "closest", "xaxis": axis | {"tickangle": 0}, "yaxis": axis,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.muted, "activecolor": theme.accent},
    })  # fmt: skip


def legend_below(figure: go.Figure, theme: Theme) -> go.Figure:
    legend = {"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0, "font": {"color": theme.text}}
    return figure.update_layout(showlegend=True, legend=legend)


def colour_bar(theme: Theme, title: str) -> dict:
    return {
        "title": {"text": title, "side": "right", "font": {"color": theme.muted, "size": 12}}, "thickness": 10,
        "outlinewidth": 0, "tickfont": {"color": theme.text, "size": 11}, "nticks": 4, "xpad": 4,
    }  # fmt: skip


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: list,
    low: float,
    high: float,
    theme: Theme,
    *,
    value_format: str = ".2f",
    name: str = "",
    bar: bool = True,
    values_in_cells: bool = True,
) -> go.Figure:
    """Values (R, C) as cells, first row on top; written in the cells where at most 25 stand side by side.

    Where they are written, no colour bar is drawn: it would say the same, and is slow to draw.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape != (len(rows), len(columns)):
        raise ValueError(f"values have shape {values.shape} for {len(rows)} rows and {len(columns)} columns")
    if max(values.shape) > MOST_CELLS:
        raise ValueError(f"{values.shape} cells are too many for one figure: at most {MOST_CELLS} along a side")
    narrow = len(columns) <= WIDEST_WITH_VALUES
    gap, written = 2 if narrow else 0, narrow and values_in_cells
    layout = {"xaxis": _ticks(columns), "yaxis": _ticks(rows) | {"autorange": "reversed"}}
    figure = Figure(
        go.Heatmap(
            z=values, zmin=low, zmax=high, colorscale=scale, xgap=gap, ygap=gap, showscale=bar and not written,
            x=list(range(len(columns))), y=list(range(len(rows))), colorbar=colour_bar(theme, name),
            customdata=[[[literal(r), literal(c)] for c in columns] for r in rows],
            hovertemplate=f"%{{customdata[0]}} · %{{customdata[1]}}: %{{z:.4f}}<extra>{literal(name)}</extra>",
        ),
        layout,
    )  # fmt: skip
    if written:
        _write_values(figure, values, scale, low, high, value_format)
    return figure


def _ticks(names: Sequence[str]) -> dict:
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": [literal(name) for name in names]}


def _write_values(
    figure: go.Figure, values: np.ndarray, scale: list, low: float, high: float, value_format: str
) -> None:
    """Black or white in each cell, whichever reads better: plotly's own choice falls below a contrast of 4.5 : 1."""
    cells = [(r, c, v) for (r, c), v in np.ndenumerate(values) if np.isfinite(v)]
    colours = [legible_on(scale_colour(scale, (v - low) / (high - low))) for _, _, v in cells]
    figure.add_scatter(
        x=[c for _, c, _ in cells], y=[r for r, _, _ in cells], mode="text", hoverinfo="skip",
        text=[format(v, value_format) for _, _, v in cells], cliponaxis=False,
        textfont={"size": 13, "color": colours},
    )  # fmt: skip
