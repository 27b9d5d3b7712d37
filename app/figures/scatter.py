"""Points on a plane, one an utterance: told apart by colour, symbol and name, or shaded by a number."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.base import Figure, colour_bar, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import CIVIDIS, SYMBOLS, Theme, class_colour, class_symbol, colour_scale

MOST_GROUPS = len(SYMBOLS)
OTHER, NONE = "all others", "not recorded"
SIZE = 7


@remembered
def scatter(table: pd.DataFrame, colour: str, axes: tuple[str, str], theme: Theme) -> go.Figure:
    """`table` has `x`, `y`, `utterance` and the column `colour`; every point carries its row's place."""
    places = np.arange(len(table))
    if pd.api.types.is_numeric_dtype(table[colour]) and not pd.api.types.is_bool_dtype(table[colour]):
        figure = Figure(_by_number(table, places, colour, theme))
    else:
        figure = Figure(_by_group(table, places, colour, theme))
    styled(figure, theme, 500, xaxis_title=axes[0], yaxis_title=axes[1], dragmode="lasso", clickmode="event")
    figure.update_layout(newselection={"line": {"color": theme.accent, "width": 2}})
    if len(figure.data) > 1:
        legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "font": {"color": theme.text}}
        figure.update_layout(showlegend=True, legend=legend | {"itemsizing": "constant"}, modebar={"orientation": "v"})
    return fitted(figure)


def groups(values: pd.Series) -> tuple[list[str], np.ndarray]:
    """Names in a constant order, the eight most frequent apart, and the group of each value (N,)."""
    text = values.astype("string").fillna(NONE)
    counts = text[text != NONE].value_counts()
    chosen = sorted(counts.index[:MOST_GROUPS])
    names = [*chosen, *([OTHER] if len(counts) > MOST_GROUPS else []), *([NONE] if (text == NONE).any() else [])]
    of = {name: place for place, name in enumerate(names)}
    return names, np.array([of.get(value, of.get(OTHER, -1)) for value in text], int)


def _by_group(table: pd.DataFrame, places: np.ndarray, colour: str, theme: Theme) -> list[dict]:
    """The largest group is drawn first, so that it hides no smaller one; the legend keeps the order of names."""
    names, group = groups(table[colour])
    sizes, drawn = np.bincount(group, minlength=len(names)), []
    for number in sorted(range(len(names)), key=lambda k: -sizes[k]):
        name, mine = names[number], places[group == number]
        rest = name in (OTHER, NONE)
        shade = theme.muted if rest else class_colour(name, number, theme)
        marker = {"color": shade, "symbol": "circle-open" if rest else class_symbol(number)}
        drawn.append(_points(table, mine, f"{name} ({len(mine)})", name, marker, theme) | {"legendrank": number + 1})
    return drawn


def _by_number(table: pd.DataFrame, places: np.ndarray, colour: str, theme: Theme) -> list[dict]:
    """From the 2nd to the 98th percentile, so that no outlier takes the whole scale; missing ones stay hollow."""
    values = table[colour].to_numpy(float)
    known, drawn = np.isfinite(values), []
    if known.any():
        low, high = np.percentile(values[known], [2, 98])
        high = high if high > low else low + 1
        marker = {"color": values[known], "cmin": low, "cmax": high, "showscale": True}
        marker |= {"colorscale": colour_scale(CIVIDIS), "colorbar": colour_bar(theme, colour)}
        drawn.append(_points(table, places[known], colour, "", marker, theme))
    if not known.all():
        marker = {"color": theme.muted, "symbol": "circle-open"}
        drawn.append(_points(table, places[~known], f"{NONE} ({(~known).sum()})", NONE, marker, theme))
    return drawn


def _points(table: pd.DataFrame, mine: np.ndarray, name: str, group: str, marker: dict, theme: Theme) -> dict:
    """One trace; as plain values, since plotly checks them again for every step that a figure is made in."""
    x, y, names = (table[column].to_numpy()[mine] for column in ("x", "y", "utterance"))
    return {
        "type": "scatter", "x": x.astype(np.float32), "y": y.astype(np.float32), "mode": "markers",
        "name": literal(name),
        "customdata": [(str(k), literal(u, 60)) for k, u in zip(mine, names, strict=True)],
        "marker": {"size": SIZE, "line": {"color": theme.text, "width": 0.4}} | marker,
        "hovertemplate": f"%{{customdata[1]}}<extra>{literal(group)}</extra>",
    }  # fmt: skip
