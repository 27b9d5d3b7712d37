"""Compare runs: which of two runs answers better on the same utterances, and which weights moved?"""

import streamlit as st

from app.components import frame, plain, versus, views
from app.services import result_files
from harmonifuse_core.runs import RunError, RunFolder

QUESTION = "Which of two runs answers better on the same utterances, and which weights moved?"
VIEWS = {"answers": "Scores and answers", "weights": "Layer weights", "parameters": "Parameters"}


def page() -> None:
    one = frame.open_page("Compare runs", QUESTION)
    if one is None:
        return
    left, right = st.columns(2, gap="medium")
    with left:
        two = versus.choose_other(one)
    if two is None:
        return
    with right:
        evaluation = versus.choose_evaluation(one, two)
    found = compared(one, two, evaluation)
    if found is not None:
        versus.verdict(one, two, found)
    view, place = views.opened("compare-view", VIEWS)
    with place:
        if view == "parameters":
            versus.parameters(one, two)
        elif found is None:
            st.caption("Not available without an evaluation that compares, see above.")
        else:
            show = versus.weights if view == "weights" else versus.answers
            show(found, versus.stem(one, two, found))


def compared(one: RunFolder, two: RunFolder, evaluation: str | None):
    """Both runs on the evaluation's utterances, or None after saying why not."""
    if evaluation is None:
        return None
    try:
        return result_files.compared(one, two, evaluation)
    except RunError as error:
        plain.problem("compare", "These two runs do not compare on this evaluation.", str(error))
        return None


page()
