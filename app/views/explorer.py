"""Routing explorer: which utterances are routed alike, and what do they have in common?"""

import streamlit as st

from app import services
from app.components import explorer, frame, logged, plain
from harmonifuse_core.runs import RunError

QUESTION = "Which utterances are routed alike, and what do they have in common?"


def page() -> None:
    run = frame.open_page("Routing explorer", QUESTION)
    if run is None:
        return
    found = logged.opened(run)
    if found is None:
        return
    try:
        config = services.config_of(run)
    except RunError as error:
        plain.problem("config", "The config of this run cannot be read, so no audio can be found.", str(error))
        config = None
    st.fragment(explorer.show)(run, config, *found)


page()
