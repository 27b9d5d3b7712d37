"""LM weights token by token, for tasks that write text."""

import streamlit as st

from app import state, tables
from app.components import chart
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import weights
from app.figures.base import MOST_CELLS, literal
from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput


def show(answer: HarmoniFuseOutput, run_name: str, digest: str) -> None:
    """Tokens x layers; the first 200 tokens are drawn, all are in the table."""
    if not answer.tokens or answer.token_weights is None:
        return
    st.header("How did the weights move from token to token?", anchor=False)
    table = tables.token_table(answer)
    alpha = answer.token_weights.alpha[: len(answer.tokens)]
    if len(answer.tokens) > MOST_CELLS:
        st.caption(f"The first {MOST_CELLS} of {len(answer.tokens)} tokens are drawn; the table has all of them.")
    maximum = weights.range_of(alpha)
    st.caption(f"Language model alpha of {answer.task.upper()}. Colours from 0 (dark) to {maximum:g} (yellow).")
    figure = weights.token_layers(alpha, answer.tokens, maximum, state.theme())
    width = weights.token_width(len(answer.tokens))
    alt = f"Language model alpha of {min(len(answer.tokens), MOST_CELLS)} tokens; the table below has the numbers"
    chart.show(figure, f"tokens-{answer.task}", literal(alt, 200), width)
    with st.expander("Table of tokens"):
        columns = [name for name in table if name.startswith("alpha")] + ["probability"]
        st.dataframe(table, hide_index=True, height=300, column_config=number_columns(columns))
    downloads(f"tokens-{answer.task}", f"{run_name}-{digest[:8]}-tokens", table, {"Tokens": figure})
