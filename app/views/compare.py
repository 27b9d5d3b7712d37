"""Compare runs: which of two runs answers better on the same utterances, and which weights moved?"""

import streamlit as st

from app.components import frame, plain, versus
from app.services import result_files
from harmonifuse_core.runs import RunError

QUESTION = "Which of two runs answers better on the same utterances, and which weights moved?"


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
    if evaluation is not None:
        try:
            versus.show(one, two, result_files.compared(one, two, evaluation))
        except RunError as error:
            plain.problem("compare", "These two runs do not compare on this evaluation.", str(error))
    versus.parameters(one, two)


page()
