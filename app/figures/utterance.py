"""One utterance over time and layer by layer: tokens on the waveform, attribution on the waveform, knock-out damage."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.base import MOST_CELLS, Figure, heatmap, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import CIVIDIS, Theme, colour_scale, shared_extent
from app.tables import layer_names

GAP = 0.03  # seconds between tokens that show as a gap
LEAST_EDGE = 1e-3
WIDTH_FRAME, WIDTH_TOKEN, WIDTH_SECOND, WIDEST = 120, 26, 100, 9000


def timeline_width(count: int, seconds: float) -> int:
    """Pixels: room for every token's word, and for every second."""
    return int(min(WIDEST, WIDTH_FRAME + max(WIDTH_TOKEN * min(count, MOST_CELLS), WIDTH_SECOND * seconds, 500)))


def token_timeline(
    low: np.ndarray, high: np.ndarray, seconds: float, spans: np.ndarray, alpha: np.ndarray, tokens: Sequence[str],
    maximum: float, theme: Theme,
) -> go.Figure:  # fmt: skip
    """Waveform above, LM alpha (U, L1) of each token below, from its start to its end (U, 2); first 200 tokens."""
    spans, alpha, tokens = spans[:MOST_CELLS], alpha[:MOST_CELLS], list(tokens)[:MOST_CELLS]
    figure = _on_waveform(low, high, seconds, theme, [0.34, 0.66])
    edges, columns = token_cells(spans)
    values = np.full((alpha.shape[1], len(columns)), np.nan)
    for place, token in enumerate(columns):
        if token >= 0:
            values[:, place] = alpha[token]
    names = layer_names(alpha.shape[1])
    said = [literal(tokens[t].strip() or "␣") if t >= 0 else "" for t in columns]
    figure.add_heatmap(
        x=edges, y=list(range(len(names))), z=values, zmin=0, zmax=maximum, colorscale=colour_scale(CIVIDIS),
        showscale=False, xgap=1, ygap=1, customdata=[[[word, name] for word in said] for name in names],
        hovertemplate="%{customdata[0]} · layer %{customdata[1]}: %{z:.3f}<extra>alpha</extra>", row=2, col=1,
    )  # fmt: skip
    styled(figure, theme, 210 + 24 * len(names), width=timeline_width(len(tokens), seconds))
    _waveform_axes(figure, low, high, seconds)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, title_text="layer", row=2, col=1)
    words = [literal(t.strip() or "␣", 18) for t in tokens]
    centres = [float(span.mean()) for span in spans]
    return fitted(figure.update_xaxes(tickvals=centres, ticktext=words, tickangle=-60, row=2, col=1))


def token_cells(spans: np.ndarray) -> tuple[list[float], list[int]]:
    """Edges (C + 1) of cells that cover the time of the tokens, and the token of each cell, -1 for a gap."""
    edges, columns = [float(spans[0, 0])] if len(spans) else [0.0], []
    for token, (start, end) in enumerate(spans.tolist()):
        if start > edges[-1] + GAP:
            edges.append(start)
            columns.append(-1)
        edges.append(max(end, edges[-1] + LEAST_EDGE))
        columns.append(token)
    return edges, columns


def attribution_timeline(
    low: np.ndarray, high: np.ndarray, seconds: float, spans: np.ndarray, scores: np.ndarray, theme: Theme
) -> go.Figure:
    """Waveform above, one bar a window (F, 2) below: up supports the answer, down speaks against it."""
    figure = _on_waveform(low, high, seconds, theme, [0.4, 0.6])
    colours = [theme.diverging[-2] if score > 0 else theme.diverging[1] for score in scores]
    figure.add_bar(
        x=spans.mean(1), y=scores, width=np.diff(spans, axis=1)[:, 0], marker={"color": colours, "line": {"width": 0}},
        customdata=spans, hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f} s: %{y:+.4f}<extra></extra>",
        row=2, col=1,
    )  # fmt: skip
    styled(figure, theme, 280, bargap=0)
    _waveform_axes(figure, low, high, seconds)
    extent = 1.1 * shared_extent(scores, 1e-6)
    figure.update_yaxes(range=[-extent, extent], title_text="score", row=2, col=1)
    return fitted(figure.update_xaxes(title_text="seconds", row=2, col=1))


@remembered
def damage(grid: np.ndarray, tasks: Sequence[str], extent: float, theme: Theme) -> go.Figure:
    """(K, L1) rise of the loss when a layer is removed, nats; both fusions share the range -extent to extent."""
    names = layer_names(grid.shape[1])
    figure = heatmap(
        grid, [t.upper() for t in tasks], names, colour_scale(theme.diverging), -extent, extent, theme,
        value_format="+.2f", name="nats",
    )  # fmt: skip
    styled(figure, theme, 86 + 46 * len(tasks), xaxis_title="layer removed")
    return fitted(figure.update_xaxes(showgrid=False, tickangle=0).update_yaxes(showgrid=False))


def _on_waveform(low, high, seconds: float, theme: Theme, heights: list[float]) -> go.Figure:
    figure = make_subplots(
        figure=Figure(), rows=2, cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.05
    )
    times = np.linspace(0, seconds, len(low)) if len(low) else np.zeros(0)
    outline = {"color": theme.accent, "width": 1}
    figure.add_scatter(x=times, y=high, mode="lines", line=outline, hoverinfo="skip", row=1, col=1)
    figure.add_scatter(x=times, y=low, mode="lines", line=outline, fill="tonexty", hoverinfo="skip", row=1, col=1)
    return figure


def _waveform_axes(figure: go.Figure, low, high, seconds: float) -> None:
    peak = max(float(np.abs(np.concatenate([low, high])).max(initial=0.0)), 1e-3)
    figure.update_yaxes(range=[-peak, peak], showticklabels=False, showgrid=False, row=1, col=1)
    figure.update_yaxes(showgrid=False, row=2, col=1)
    figure.update_xaxes(range=[0, seconds], showgrid=False)
    figure.update_xaxes(side="top", showticklabels=True, ticksuffix=" s", row=1, col=1)
