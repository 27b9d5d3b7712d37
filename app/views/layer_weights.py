"""Layer weights: which layers does each task draw on, how firmly, and where do tasks and groups differ?"""

import streamlit as st

from app import services
from app.components import choices, frame, layers, logged, steps

QUESTION = "Which layers does each task draw on, how firmly, and where do tasks and groups of speech differ?"
TASKS, TRAINING, DIFFERENCE, GROUPS = "tasks", "training", "difference", "groups"
VIEWS = {TASKS: "Tasks", TRAINING: "Over training", DIFFERENCE: "Difference", GROUPS: "Groups"}


def page() -> None:
    run = frame.open_page("Layer weights", QUESTION)
    if run is None:
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        view = choices.segments("View", "view", list(VIEWS), TASKS, VIEWS.get)
        scope = st.container()
    if view == TRAINING:
        st.fragment(steps.show)(services.metrics_rows(run), run)
        return
    found = logged.opened(run)
    if found is None:
        return
    files, index = found
    with scope:
        wanted = layers.scope(index)
    show = {TASKS: layers.show_tasks, DIFFERENCE: layers.show_difference, GROUPS: layers.show_groups}[view]
    show(run, files, index, wanted)


page()
