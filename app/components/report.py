"""The run as one offline HTML file, made when the button is pressed."""

import streamlit as st

from app.components.export import file_stem
from harmonifuse_core.config import Config
from harmonifuse_core.report import report_html
from harmonifuse_core.runs import RunFolder


def button(run: RunFolder, config: Config | None) -> None:
    """Nothing where the config cannot be read: the page has said so."""
    if config is None:
        return
    st.download_button(
        "Report as one HTML file", lambda: report_html(run).encode(), f"{file_stem(run.name)}-report.html", "text/html",
        key="report", on_click="ignore", icon=":material/download:",
        help="Results, weights, training and verdicts; opens offline, figures stay interactive",
    )  # fmt: skip
