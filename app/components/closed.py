"""What stands behind a line to open: made when it is opened, and then alone.

A browser draws what a shut expander holds, and a table that nobody sees takes it as long as one that all look at.
"""

from collections.abc import Callable

import pandas as pd
import streamlit as st

KEY = "closed-"  # start of the session keys that say what is open


def closed(title: str, key: str, show: Callable[[], None]) -> None:
    """A line that opens; `show` makes what is behind it. key: unique on the page."""
    st.fragment(_behind)(title, key, show)


def closed_table(title: str, key: str, table: pd.DataFrame, **options) -> None:
    """The same for a table, with `st.dataframe`'s options."""
    closed(title, key, lambda: st.dataframe(table, hide_index=True, **options))


def _behind(title: str, key: str, show: Callable[[], None]) -> None:
    place = st.expander(title, key=f"{KEY}{key}", on_change="rerun")
    if place.open:
        with place:
            show()
