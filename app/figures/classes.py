"""Classes and their probabilities: bars, changes, confusion, recall, reliability."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.base import Figure, heatmap, literal, styled
from app.figures.margins import fitted
from app.figures.memory import remembered
from app.palette import CIVIDIS, Theme, class_colour, class_symbol, colour_scale, shared_extent

MOST_CLASSES = 60


@remembered
def probability_bars(probabilities: Mapping[str, float], theme: Theme) -> go.Figure:
    """All classes in their own constant order, the value printed behind each bar, the winner marked by an arrow too."""
    labels = list(probabilities)[:MOST_CLASSES]
    values = [float(probabilities[label]) for label in labels]
    winner = int(np.argmax(values))
    texts = [f" {v:.2f}  ◀" if i == winner else f" {v:.2f}" for i, v in enumerate(values)]
    colours = [class_colour(label, i, theme) for i, label in enumerate(labels)]
    figure = Figure(go.Bar(
        x=values, y=list(range(len(labels))), orientation="h", text=texts, textposition="outside", cliponaxis=False,
        marker={"color": colours, "line": {"color": theme.text, "width": 0.6}}, textfont={"color": theme.text},
        customdata=[literal(label) for label in labels], hovertemplate="%{customdata}: %{x:.4f}<extra></extra>",
    ))  # fmt: skip
    styled(figure, theme, 30 + 26 * len(labels), bargap=0.35)
    figure.update_xaxes(range=[0, 1.16], showticklabels=False, showgrid=False, zeroline=True)
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(labels))), ticktext=[literal(label, 18) for label in labels],
        autorange="reversed", showgrid=False, zeroline=False,
    )  # fmt: skip
    return fitted(figure)


@remembered
def probability_changes(changes: Mapping[str, float], theme: Theme) -> go.Figure:
    """Edited minus default probability of every class, to the left and right of 0."""
    labels, values = list(changes)[:MOST_CLASSES], list(changes.values())[:MOST_CLASSES]
    extent = shared_extent(values)
    colours = [theme.diverging[-2] if v > 0 else theme.diverging[1] for v in values]
    figure = Figure(go.Bar(
        x=values, y=list(range(len(labels))), orientation="h", text=[f"{v:+.3f}" for v in values], cliponaxis=False,
        textposition="outside", marker={"color": colours, "line": {"color": theme.text, "width": 0.6}},
        textfont={"color": theme.text},
        customdata=[literal(label) for label in labels], hovertemplate="%{customdata}: %{x:+.4f}<extra></extra>",
    ))  # fmt: skip
    styled(figure, theme, 30 + 26 * len(labels), bargap=0.35)
    figure.update_xaxes(range=[-1.45 * extent, 1.45 * extent], showticklabels=False, showgrid=False, zeroline=True)
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(labels))), ticktext=[literal(label, 18) for label in labels],
        autorange="reversed", showgrid=False, zeroline=False,
    )  # fmt: skip
    return fitted(figure)


@remembered
def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str], theme: Theme) -> go.Figure:
    """Rows are what was said (reference), columns what the model heard; cells show the share of their row."""
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    rows = [f"{label} ({int(n)})" for label, n in zip(labels, totals[:, 0], strict=True)]
    figure = heatmap(shares, rows, labels, colour_scale(CIVIDIS), 0.0, 1.0, theme, name="share of row")
    styled(figure, theme, 120 + 34 * len(labels), xaxis_title="predicted", yaxis_title="reference (utterances)")
    return fitted(figure.update_xaxes(showgrid=False, tickangle=-45).update_yaxes(showgrid=False))


@remembered
def recall_bars(recall: Mapping[str, float | None], theme: Theme) -> go.Figure:
    """Recall of each class; a class without an utterance says so instead of showing 0."""
    labels = list(recall)[:MOST_CLASSES]
    known = [isinstance(recall[label], (int, float)) for label in labels]
    texts = [f" {recall[label]:.2f}" if has else " no utterance" for label, has in zip(labels, known, strict=True)]
    figure = Figure(go.Bar(
        x=[recall[label] if has else 0 for label, has in zip(labels, known, strict=True)], y=list(range(len(labels))),
        orientation="h", text=texts, textposition="outside", cliponaxis=False, textfont={"color": theme.text},
        marker={"color": [class_colour(label, i, theme) for i, label in enumerate(labels)],
                "line": {"color": theme.text, "width": 0.6}}, hoverinfo="skip",
    ))  # fmt: skip
    styled(figure, theme, 60 + 30 * len(labels), bargap=0.35, xaxis_title="recall")
    figure.update_xaxes(range=[0, 1.18], tickvals=[0, 0.5, 1])
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(labels))), ticktext=[literal(label, 18) for label in labels],
        autorange="reversed", showgrid=False, zeroline=False,
    )  # fmt: skip
    return fitted(figure)


@remembered
def reliability(bins: Sequence[Mapping], theme: Theme) -> go.Figure:
    """Accuracy against confidence; on the diagonal the probabilities are honest. Symbol size tells the count."""
    filled = [b for b in bins if b.get("count")]
    most = max((b["count"] for b in filled), default=1)
    figure = Figure(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": theme.muted, "dash": "dash"}, hoverinfo="skip")
    )
    figure.add_scatter(
        x=[b["confidence"] for b in filled], y=[b["accuracy"] for b in filled], mode="markers+text",
        text=[str(b["count"]) for b in filled], textposition="top center", textfont={"color": theme.text, "size": 11},
        marker={"size": [8 + 16 * b["count"] / most for b in filled], "color": theme.accent, "symbol": class_symbol(0)},
        hovertemplate="confidence %{x:.2f}, accuracy %{y:.2f}, %{text} utterances<extra></extra>",
    )  # fmt: skip
    styled(figure, theme, 320, xaxis_title="confidence", yaxis_title="accuracy")
    return fitted(figure.update_xaxes(range=[-0.03, 1.05]).update_yaxes(range=[-0.03, 1.12]))
