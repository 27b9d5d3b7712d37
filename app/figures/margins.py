"""Room for labels, found from the labels themselves: plotly's own `automargin` draws every figure twice to find it.

Legends and colour bars still push the plot aside by themselves: how many lines a legend takes depends on the width.
"""

import html
import re
from math import ceil, cos, floor, isfinite, log10, radians, sin

import numpy as np
import plotly.graph_objects as go

TICK, TITLE = 13, 24  # pixels: size of the letters at ticks; room of an axis title with the gap before it
LINE, PAD, LEAST, BESIDE = 17, 5, 8, 14  # height of a line, gap to the axis, least margin, half a label at an edge
NARROW, WIDE = frozenset("iljIftr.,:;!|'()[]/ -"), frozenset("mwMW@%")
TAGS = re.compile(r"<[^>]*>")
UNKNOWN = "5×10⁻⁵"  # as wide as plotly writes a number
TICKS = 5


def fitted(figure: go.Figure) -> go.Figure:
    """Fixed margins instead of plotly's search. To be called last: it reads ticks, titles, ranges and data."""
    given = figure.layout.margin
    left, right, top, bottom = LEAST, given.r or LEAST, given.t or LEAST, LEAST
    for axis in _axes(figure, "yaxis"):
        width = max(map(text_width, _labels(figure, axis)), default=0.0)
        left = max(left, LEAST + (width + PAD if width else 0) + (TITLE if axis.title.text else 0))
    for axis in _axes(figure, "xaxis"):
        labels, low, high = _labels(figure, axis), *_reach(figure, axis)
        height = (_height(labels, axis.tickangle) + PAD if labels else 0) + (TITLE if axis.title.text else 0)
        if axis.side == "top" and high >= 1:
            top = max(top, LEAST + height)
        elif axis.side != "top" and low <= 0:
            bottom = max(bottom, LEAST + height)
        right = max(right, BESIDE if labels else LEAST)
    figure.update_layout(margin={"l": ceil(left), "r": ceil(right), "t": ceil(top), "b": ceil(bottom)})
    return figure.update_xaxes(automargin=False).update_yaxes(automargin=False)


def text_width(text: str, size: float = TICK) -> float:
    """Pixels of a label in the dashboard's letters, rather too many than too few."""
    plain = html.unescape(TAGS.sub("", text))
    return size * sum(0.36 if c in NARROW else 0.88 if c in WIDE else _usual(c) for c in plain)


def _usual(letter: str) -> float:
    return 1.05 if ord(letter) > 0x2E7F else 0.65 if letter.isupper() or ord(letter) > 0x2FF else 0.56


def _height(labels: list[str], angle: float | None) -> float:
    if not angle:
        return LINE
    turned = radians(abs(angle))
    return sin(turned) * max(map(text_width, labels)) + cos(turned) * LINE


def _axes(figure: go.Figure, kind: str) -> list:
    return [figure.layout[name] for name in figure.layout if name.startswith(kind)]


def _name(axis) -> str:
    """`x2` of the layout's `xaxis2`."""
    return axis.plotly_name.replace("axis", "")


def _reach(figure: go.Figure, axis) -> tuple[float, float]:
    """Where the plot that this x axis belongs to starts and ends, from 0 at the figure's foot to 1."""
    other = (axis.anchor or "y").replace("y", "yaxis")
    domain = figure.layout[other].domain if other.startswith("yaxis") else None
    return tuple(domain) if domain else (0.0, 1.0)


def _labels(figure: go.Figure, axis) -> list[str]:
    """The words at the ticks; for numbers, the longest that plotly may choose."""
    if axis.showticklabels is False:
        return []
    if axis.ticktext is not None:
        return [str(text) for text in axis.ticktext]
    if axis.tickformat:
        return [UNKNOWN]
    low, high = axis.range if axis.range is not None else _range(figure, _name(axis))
    return [text + (axis.ticksuffix or "") for text in numbers(float(low), float(high))]


def _range(figure: go.Figure, name: str) -> tuple[float, float]:
    """Least and largest value that is drawn along an axis; no numbers there: a range of unknown width."""
    found = []
    for trace in figure.data:
        if (getattr(trace, f"{name[0]}axis", None) or name[0]) == name:
            values = trace[name[0]]
            try:
                found.append(np.asarray([np.nan if v is None else v for v in values], np.float64))
            except (TypeError, ValueError):
                continue
    values = np.concatenate(found) if found else np.zeros(0)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (-np.inf, np.inf)


def numbers(low: float, high: float) -> list[str]:
    """How plotly would write the ends of an axis from `low` to `high`."""
    span = abs(high - low)
    if not isfinite(span) or not span or max(abs(low), abs(high)) >= 1e4 or span < 1e-3:
        return [UNKNOWN]
    digits = max(0, -floor(log10(span / TICKS)))
    return [f"{value:.{digits}f}" for value in (low, high)]
