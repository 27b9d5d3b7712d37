"""Layer weights as pictures: tasks x layers, tokens x layers, the difference of two, and the way through training."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.base import MOST_CELLS, Figure, heatmap, legend_below, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import CIVIDIS, Theme, colour_scale, line_style, shared_extent, shared_maximum, task_colour
from app.tables import layer_names, thinned

PART_TITLES = {"alpha": "alpha", "share": "effective share"}
TOKEN_WIDTH, TOKEN_FRAME = 30, 110
MOST_TICKS = 30


@remembered
def task_layers(grid: np.ndarray, tasks: Sequence[str], maximum: float, theme: Theme, part: str = "alpha") -> go.Figure:
    """(K, L1) weights, a row a task, all on the colour range 0 to `maximum` that the page's other maps use too."""
    names = layer_names(grid.shape[1])
    figure = heatmap(
        grid, [t.upper() for t in tasks], names, colour_scale(CIVIDIS), 0.0, maximum, theme, name=PART_TITLES[part]
    )
    styled(figure, theme, 86 + 46 * len(tasks), xaxis_title="layer")
    return _with_layers(figure, names)


@remembered
def named_layers(
    grid: np.ndarray, names: Sequence[str], maximum: float, theme: Theme, part: str = "alpha"
) -> go.Figure:
    """(R, L1) weights, or their standard deviations, a row a group; names from outside stay letters."""
    layers = layer_names(grid.shape[1])
    figure = heatmap(grid, names, layers, colour_scale(CIVIDIS), 0.0, maximum, theme, name=PART_TITLES.get(part, part))
    styled(figure, theme, 86 + 32 * len(names), xaxis_title="layer")
    return _with_layers(figure, layers)


@remembered
def difference(
    grid: np.ndarray, stages: Sequence[str], theme: Theme, extent: float | None = None, name: str = "change",
    value_format: str = "+.3f",
) -> go.Figure:  # fmt: skip
    """Difference of two weights, (R, L1); NaN where a stage has fewer layers. Centred at 0."""
    extent = extent or shared_extent(grid[np.isfinite(grid)])
    names = layer_names(grid.shape[1])
    figure = heatmap(
        grid, stages, names, colour_scale(theme.diverging), -extent, extent, theme, value_format=value_format, name=name
    )
    styled(figure, theme, 86 + 46 * len(stages), xaxis_title="layer")
    return _with_layers(figure, names)


def token_layers(alpha: np.ndarray, tokens: Sequence[str], maximum: float, theme: Theme) -> go.Figure:
    """LM alpha of each token: tokens (at most 200) from left to right, layers from bottom to top.

    The figure has a fixed width by its tokens, so that the words stay readable; the page scrolls it.
    """
    alpha, tokens = alpha[:MOST_CELLS], list(tokens)[:MOST_CELLS]
    figure = heatmap(
        alpha.T[::-1], [f"layer {n}" if n != "input" else n for n in layer_names(alpha.shape[1])][::-1],
        [t.strip() or "␣" for t in tokens], colour_scale(CIVIDIS), 0.0, maximum, theme, name="alpha", bar=False,
        values_in_cells=False,
    )  # fmt: skip
    figure.update_traces(xgap=1, ygap=1)
    styled(figure, theme, 96 + 26 * alpha.shape[1], width=token_width(len(tokens)))
    return fitted(figure.update_xaxes(showgrid=False, tickangle=-55).update_yaxes(showgrid=False))


def token_width(count: int) -> int:
    return TOKEN_FRAME + TOKEN_WIDTH * min(count, MOST_CELLS)


@remembered
def over_training(steps: Sequence[int], alpha: np.ndarray, maximum: float, theme: Theme) -> go.Figure:
    """Mean alpha of the training batches, steps x layers; more than 200 steps are thinned evenly."""
    kept = thinned(len(steps), MOST_CELLS)
    values, names = alpha[kept].T, layer_names(alpha.shape[1])
    figure = heatmap(
        values,
        names,
        [str(steps[k]) for k in kept],
        colour_scale(CIVIDIS),
        0.0,
        maximum,
        theme,
        name="alpha",
        values_in_cells=False,
    )
    styled(figure, theme, 90 + max(120, 26 * len(names)), xaxis_title="training step", yaxis_title="layer")
    shown = thinned(len(kept), 6)
    figure.update_xaxes(showgrid=False, tickvals=shown.tolist(), ticktext=[str(steps[kept[s]]) for s in shown])
    return fitted(figure.update_yaxes(showgrid=False, autorange=True))


@remembered
def alpha_lines(steps: Sequence[int], alpha: np.ndarray, maximum: float, theme: Theme) -> go.Figure:
    """The same as lines, one a layer, told apart by colour, dash and a name at their end."""
    kept = thinned(len(steps), 500)
    figure = Figure()
    chosen = thinned(alpha.shape[1], 8)  # more lines than that cannot be told apart
    names = layer_names(alpha.shape[1])
    for place, layer in enumerate(chosen):
        line = {"color": task_colour(place, theme), "dash": line_style(place), "width": 2}
        name = "input" if layer == 0 else f"layer {names[layer]}"
        x = [steps[k] for k in kept]
        figure.add_scatter(x=x, y=alpha[kept, layer], name=name, mode="lines" if len(x) > 1 else "markers", line=line)
    styled(figure, theme, 260, xaxis_title="training step", yaxis_title="mean alpha", hovermode="x unified")
    figure.update_yaxes(range=[0, maximum])
    return fitted(legend_below(figure, theme))


def range_of(*grids: np.ndarray) -> float:
    """One colour range for several maps."""
    return shared_maximum(np.concatenate([np.ravel(g) for g in grids]) if grids else [])


def described(grid: np.ndarray, tasks: Sequence[str], stage: str) -> str:
    """The figure in one sentence, for those who do not see it."""
    names = layer_names(grid.shape[1])
    tops = [
        f"{t}: most on {literal(names[int(row.argmax())])} ({row.max():.2f})"
        for t, row in zip(tasks, grid, strict=True)
    ]
    return f"{stage} layer weights. " + "; ".join(tops)


def _with_layers(figure: go.Figure, names: Sequence[str]) -> go.Figure:
    """The x axis names every layer, or some of them where they are many."""
    ticks = thinned(len(names), MOST_TICKS if len(names) <= MOST_TICKS else 13).tolist()
    texts = [names[tick] for tick in ticks]
    return fitted(
        figure.update_xaxes(showgrid=False, tickangle=0, tickvals=ticks, ticktext=texts).update_yaxes(showgrid=False)
    )
