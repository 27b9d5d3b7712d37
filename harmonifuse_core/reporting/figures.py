"""Figures as plain dictionaries that plotly.js draws. Colours as in the dashboard: weights Cividis with a fixed range,
series told apart by colour and dash. Labels are made literal here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harmonifuse_core.reporting.page import literal

CIVIDIS = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")
SCALE = [[place / (len(CIVIDIS) - 1), colour] for place, colour in enumerate(CIVIDIS)]
LINES = ("#3f86c9", "#d2743a", "#0f9d78", "#b667a0", "#8f8a1c", "#7a8799")  # read on light and on dark
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
STEPS = (0.05, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0)
MOST_POINTS, MOST_COLUMNS, WIDEST_WITH_VALUES = 600, 200, 25


def shared_maximum(grids: Sequence[np.ndarray]) -> float:
    """The least round number that holds all weights, so that maps compare."""
    largest = max((float(np.nanmax(grid)) for grid in grids if grid.size), default=0.0)
    return next((step for step in STEPS if largest <= step), 1.0)


def layer_names(count: int) -> list[str]:
    return ["input", *(str(layer) for layer in range(1, count))]


def heatmap(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], maximum: float, title: str = "") -> dict:
    """(R, C) from 0 to `maximum`, first row on top, the value in each cell where at most 25 stand side by side."""
    rows, columns = [literal(r) for r in rows], [literal(c) for c in columns]
    places = {"x": list(range(len(columns))), "y": list(range(len(rows)))}
    written = len(columns) <= WIDEST_WITH_VALUES
    gap = 2 if written else 0
    data = [{
        "type": "heatmap", "z": _numbers(values), **places, "zmin": 0, "zmax": maximum, "colorscale": SCALE,
        "xgap": gap, "ygap": gap, "colorbar": {"thickness": 10, "outlinewidth": 0, "nticks": 4},
        "customdata": [[[r, c] for c in columns] for r in rows],
        "hovertemplate": "%{customdata[0]} · %{customdata[1]}: %{z:.4f}<extra></extra>",
    }]  # fmt: skip
    if written:
        cells = [(r, c, v) for (r, c), v in np.ndenumerate(values) if math.isfinite(v)]
        data.append({
            "type": "scatter", "mode": "text", "hoverinfo": "skip", "showlegend": False, "x": [c for _, c, _ in cells],
            "y": [r for r, _, _ in cells], "text": [f"{v:.2f}" for _, _, v in cells],
            "textfont": {"color": ["#ffffff" if v / maximum <= 0.5 else "#000000" for _, _, v in cells]},
        })  # fmt: skip
    shown = _thinned(len(columns), 30 if written else 8)
    x = {"tickvals": shown, "ticktext": [columns[k] for k in shown], "title": {"text": title}, "showgrid": False}
    y = {"tickvals": places["y"], "ticktext": rows, "autorange": "reversed", "showgrid": False}
    return {"data": data, "layout": _layout(90 + 34 * len(rows), x, y)}


def intervals(names: Sequence[str], values: Sequence[float], low: Sequence, high: Sequence, title: str) -> dict:
    """A point a row with its interval, where there is one; the value is written beside it."""
    names = [literal(name) for name in names]
    above = [h - v if h is not None else 0 for v, h in zip(values, high, strict=True)]
    below = [v - w if w is not None else 0 for v, w in zip(values, low, strict=True)]
    data = [{
        "type": "scatter", "mode": "markers+text", "x": list(values), "y": list(range(len(names))),
        "text": [f"{v:.3f}" for v in values], "textposition": "top center", "marker": {"size": 9, "color": LINES[0]},
        "error_x": {"type": "data", "array": above, "arrayminus": below, "color": LINES[0]}, "customdata": names,
        "hovertemplate": "%{customdata}: %{x:.4f}<extra></extra>",
    }]  # fmt: skip
    y = {"tickvals": list(range(len(names))), "ticktext": names, "range": [len(names) - 0.4, -0.8]}
    return {"data": data, "layout": _layout(90 + 44 * len(names), {"title": {"text": title}, "rangemode": "tozero"}, y)}


def lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_title: str, y_title: str) -> dict:
    """One line a series of (x, y), long ones thinned evenly."""
    data = []
    for place, (name, (x, y)) in enumerate(series.items()):
        kept = _thinned(len(x), MOST_POINTS)
        dash = DASHES[(place + place // len(LINES)) % len(DASHES)]  # a colour that comes again has another dash
        data.append({
            "type": "scatter", "mode": "lines+markers" if len(kept) < 25 else "lines", "name": literal(name),
            "x": [float(x[k]) for k in kept], "y": _numbers(np.array([y[k] for k in kept], float)),
            "line": {"color": LINES[place % len(LINES)], "dash": dash, "width": 2},
        })  # fmt: skip
    layout = _layout(320, {"title": {"text": x_title}}, {"title": {"text": y_title}})
    return {"data": data, "layout": layout | {"showlegend": True, "legend": {"orientation": "h", "y": -0.25}}}


def over_steps(steps: Sequence[int], alpha: np.ndarray, maximum: float) -> dict:
    """(N, L1) over training: steps from left to right, layers from top to bottom."""
    kept = _thinned(len(steps), MOST_COLUMNS)
    names = [str(steps[k]) for k in kept]
    return heatmap(alpha[kept].T, layer_names(alpha.shape[1]), names, maximum, "training step")


def _layout(height: int, x: dict, y: dict) -> dict:
    margin = {"l": 8, "r": 8, "t": 12, "b": 8}
    return {"height": height, "margin": margin, "showlegend": False, "xaxis": x, "yaxis": y, "hovermode": "closest"}


def _thinned(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread, ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist() if count else []


def _numbers(values: np.ndarray) -> list:
    """Nested lists; what is not finite becomes None, as JSON has no NaN."""
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [float(v) if math.isfinite(v) else None for v in values]
