"""Training curves: one panel a kind, one line a series, told apart by colour, dash and name."""

import pandas as pd
import plotly.graph_objects as go

from app.figures.base import Figure, legend_below, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import Theme, line_style, task_colour
from app.tables import thinned

MOST_POINTS = 1000
AXIS_TITLES = {
    "loss": "loss",
    "dev": "score",
    "gradient norm": "norm before clipping",
    "learning rate": "learning rate",
}


@remembered
def curves(table: pd.DataFrame, kind: str, theme: Theme) -> go.Figure:
    """`table` as `tables.training_table` gives it; series longer than 1,000 points are thinned evenly."""
    figure = Figure()
    chosen = table[table["kind"] == kind]
    for place, (series, rows) in enumerate(chosen.groupby("series", sort=False)):
        rows = rows.iloc[thinned(len(rows), MOST_POINTS)]
        few = len(rows) < 25
        figure.add_scatter(
            x=rows["step"].tolist(), y=rows["value"].tolist(), name=literal(series),
            mode="lines+markers" if few else "lines",
            line={"color": task_colour(place, theme), "dash": line_style(place), "width": 2}, marker={"size": 6},
        )  # fmt: skip
    styled(
        figure, theme, 280, xaxis_title="training step", yaxis_title=AXIS_TITLES.get(kind, kind), hovermode="x unified"
    )
    if kind == "learning rate":
        figure.update_yaxes(tickformat=".1e")
    return fitted(legend_below(figure, theme) if chosen["series"].nunique() > 1 else figure)


@remembered
def scores_with_intervals(table: pd.DataFrame, theme: Theme) -> go.Figure:
    """Each evaluation's value with its interval, measure by measure; rows as `tables.results_table` gives them."""
    figure = Figure()
    names = [f"{literal(r.evaluation, 26)} · {literal(r.key.upper(), 10)}" for r in table.itertuples()]
    above, below = (table["high"] - table["value"]).fillna(0), (table["value"] - table["low"]).fillna(0)
    bars = {"type": "data", "array": above.tolist(), "arrayminus": below.tolist()}
    bars |= {"color": theme.accent, "thickness": 1.6}
    figure.add_scatter(
        x=table["value"].tolist(), y=list(range(len(table))), mode="markers+text",
        text=[f"{v:.3f}" for v in table["value"]],
        textposition="top center", textfont={"color": theme.text, "size": 11},
        marker={"color": theme.accent, "size": 9, "symbol": "square"},
        error_x=bars,
        customdata=names, hovertemplate="%{customdata}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    styled(figure, theme, 70 + 42 * len(table))
    figure.update_yaxes(
        tickvals=list(range(len(table))), ticktext=names, range=[len(table) - 0.4, -0.8], showgrid=False, zeroline=False
    )
    return fitted(figure.update_xaxes(rangemode="tozero"))
