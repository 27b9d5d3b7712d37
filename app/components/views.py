"""Parts of a page as tabs, of which only the open one is made; the address names it, and the task and stage shown."""

from collections.abc import Mapping, Sequence

import streamlit as st

from app import state, tables
from app.components.finding import picked
from app.components.plain import notes

STAGE_WORDS = {"encoder": "Encoder", "lm": "LM"}


def head(title: str, question: str) -> None:
    """Head of a page that is not about one run."""
    st.title(title, anchor=False)
    with st.container(key="question"):
        st.markdown(question)
    notes("link", state.link().problems)


def opened(key: str, titles: Mapping[str, str]):
    """The open tab's name and its place, from {name in the address: title}."""
    wanted = state.link().view
    if wanted in titles and key not in st.session_state:
        st.session_state[key] = titles[wanted]
    places = st.tabs(list(titles.values()), key=key, on_change="rerun")
    chosen = next((i for i, place in enumerate(places) if place.open), 0)
    name = list(titles)[chosen]
    state.set_link(view=name if chosen or wanted else None)
    return name, places[chosen]


def task_and_stage(key: str, tasks: Sequence[str], stages: Sequence[str] = tuple(tables.STAGES)):
    """Two choices side by side, kept in the address; either is None where there is nothing to choose from."""
    link = state.link()
    with st.container(horizontal=True, gap="medium"):
        task = picked("Task", tasks, f"{key}-task", link.task, str.upper)
        stage = picked("Stage", stages, f"{key}-stage", link.stage, lambda s: STAGE_WORDS.get(s, s))
    state.set_link(task=task, stage=stage)
    return task, stage
