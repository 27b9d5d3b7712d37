"""Download buttons. What they hold is made when they are pressed, never before."""

import re
from collections.abc import Callable, Mapping

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import exports, state


def downloads(
    key: str,
    name: str,
    table: pd.DataFrame | None = None,
    figures: Mapping[str, go.Figure] | None = None,
    json: Callable[[], bytes] | None = None,
) -> None:
    """A row of buttons for what is there: the table as CSV and Parquet, the figures as one HTML file, the rest as JSON.

    key: unique on the page. name: stem of the files, made harmless here.
    """
    stem, theme = file_stem(name), state.theme()
    offers = []
    if table is not None:
        offers.append(("CSV", lambda: exports.csv_bytes(table), "csv", "text/csv"))
        offers.append(("Parquet", lambda: exports.parquet_bytes(table), "parquet", "application/vnd.apache.parquet"))
    if figures:
        offers.append(
            ("HTML", lambda: exports.html_bytes(stem, figures, theme.surface, theme.text), "html", "text/html")
        )
    if json is not None:
        offers.append(("JSON", json, "json", "application/json"))
    with st.container(horizontal=True, gap="small", key=f"downloads-{key}"):
        for label, data, suffix, mime in offers:
            st.download_button(
                label, data, f"{stem}.{suffix}", mime, key=f"download-{key}-{suffix}", on_click="ignore",
                icon=":material/download:", help=f"Download as {label}",
            )  # fmt: skip


def file_stem(name: str) -> str:
    """Letters, digits, dots and dashes only."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:120] or "harmonifuse"
