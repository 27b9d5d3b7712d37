"""What every page stands in: style, choice of run, the page's question, and the word about an untrained model."""

from pathlib import Path

import streamlit as st

from app import services, state
from app.components.plain import empty, notes, problem
from harmonifuse_core.runs import RunError, RunFolder

STYLE = Path(__file__).resolve().parents[1] / "style.css"
CHOICE, KEPT = "run_choice", "run_kept"
UNTRAINED = (
    "**This run is untrained**: no training log, no evaluation. Its answers and weights mean nothing; they only show "
    "that the page works."
)
TRAIN_COMMAND = "python -m harmonifuse_core.train --config harmonifuse_core/configs/default.yaml --run runs/mine"


def shell() -> None:
    """Once a script run, before the page: style, and the choice of run in the sidebar."""
    st.html(STYLE)
    names = [run.name for run in services.runs()]
    with st.sidebar:
        if names:
            _choose(names)


def _choose(names: list[str]) -> None:
    wanted = state.link().run
    if wanted in names:
        st.session_state[CHOICE] = wanted
    elif st.session_state.get(KEPT) in names:
        st.session_state[CHOICE] = st.session_state[KEPT]
    else:
        st.session_state[CHOICE] = preferred(names)
    st.session_state[KEPT] = st.selectbox("Run", names, key=CHOICE, on_change=_run_chosen)
    if wanted is None:
        state.set_link(run=st.session_state[KEPT])


def _run_chosen() -> None:
    state.only_run(st.session_state[CHOICE])


def preferred(names: list[str]) -> str:
    """`default` if it is there, else the first that was trained, else the first."""
    if "default" in names:
        return "default"
    return next((name for name in names if services.is_trained(services.run_named(name))), names[0])


def about() -> None:
    """After the page, which may have loaded a model: what this server holds."""
    loads = services.model_loads()
    copies = "No model loaded yet" if not loads else f"Model loads since start: {loads}"
    st.sidebar.caption(f"{copies}. One copy serves all visitors; recordings stay in their own session.")


def open_page(title: str, question: str) -> RunFolder | None:
    """Head of a page. Returns the chosen run, or None after saying why there is none."""
    st.title(title, anchor=False)
    with st.container(key="question"):
        st.markdown(question)
    link = state.link()
    notes("link", link.problems)
    names = [run.name for run in services.runs()]
    if link.run is not None and link.run not in names:
        notes("link-run", [f"the link names the run {state.shortened(link.run)}, which is not in the runs folder"])
    if not names:
        empty(
            "There is no run yet", "A run is a folder below `runs/` that training writes. Make one with:", TRAIN_COMMAND
        )
        return None
    try:
        run = services.run_named(st.session_state[KEPT])
    except (RunError, KeyError) as error:
        problem("run", "This run cannot be opened.", str(error))
        return None
    if not services.is_trained(run):
        st.warning(UNTRAINED, icon=":material/science:")
    return run
