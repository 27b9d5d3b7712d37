"""How columns of numbers are written in tables."""

import streamlit as st


def number_columns(names, digits: int = 4) -> dict:
    return {name: st.column_config.NumberColumn(format=f"%.{digits}f") for name in names}
