"""One way to show a figure: the page's own colours, a sentence for who cannot see it, no toolbar in the way."""

import plotly.graph_objects as go
import streamlit as st

CONFIG = {"displaylogo": False, "displayModeBar": "hover", "scrollZoom": False,
          "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]}  # fmt: skip


NARROW = 8  # more cells side by side than this need a width of their own


def roomy(columns: int) -> int | None:
    """Pixels for a heatmap whose values must stay readable on a phone too; None where it may shrink with its column."""
    return 170 + 44 * columns if columns > NARROW else None


def show(figure: go.Figure, key: str, alt: str, width: int | None = None) -> None:
    """`width` in pixels puts the figure in a box that scrolls sideways; without it the figure fills its column."""
    if width is None:
        st.plotly_chart(figure, theme=None, key=key, alt=alt, config=CONFIG)
        return
    with st.container(key=f"scroll-{key}"):
        st.plotly_chart(figure, theme=None, key=key, alt=alt, config=CONFIG, width=width)
