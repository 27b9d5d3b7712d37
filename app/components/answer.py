"""What the tasks heard: transcript as plain text, classes as bars, and how long it took."""

import streamlit as st

from app import state, tables
from app.components import chart
from app.components.export import downloads
from app.figures import classes
from app.services import Answered
from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput

TITLES = {"asr": "Transcript", "ser": "Emotion"}


def title_of(task: str) -> str:
    return TITLES.get(task, task.upper())


def show(answered: Answered) -> None:
    """Every task's answer in the run's order of tasks."""
    for answer in answered.answers.values():
        st.subheader(title_of(answer.task), anchor=False)
        if answer.text is not None:
            _transcript(answer)
        else:
            _classes(answer)
    pace = f"Answered in {answered.seconds:.1f} s for {answered.audio_seconds:.1f} s of audio on {answered.device}."
    if answered.pieces > 1:
        pace += (
            f" The audio was cut at quiet places into {answered.pieces} pieces: texts are joined, probabilities and "
            "weights are means by duration."
        )
    st.caption(pace)


def _transcript(answer: HarmoniFuseOutput) -> None:
    with st.container(key=f"transcript-{answer.task}"):
        st.text(answer.text or "(no words recognised)")
    if answer.truncated:
        st.caption("The text was cut: it ran into a repetition or the length limit.")
    if answer.tokens:
        with st.expander("Confidence of each token"):
            table = tables.token_table(answer)[["position", "token", "probability"]]
            column = st.column_config.ProgressColumn("probability", min_value=0, max_value=1, format="%.2f")
            st.dataframe(table, hide_index=True, height=260, column_config={"probability": column})
            downloads(f"confidence-{answer.task}", "token-confidence", table)


def _classes(answer: HarmoniFuseOutput) -> None:
    figure = classes.probability_bars(answer.probabilities, state.theme())
    spoken = ", ".join(f"{label} {p:.2f}" for label, p in answer.probabilities.items())
    chart.show(figure, f"classes-{answer.task}", f"{title_of(answer.task)} probabilities: {spoken}")
