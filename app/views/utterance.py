"""Utterance: what did the model make of this one utterance, and why?"""

import shlex

import streamlit as st

from app import logged_utterance, services, state
from app.components import frame, neighbours, one_utterance, plain
from app.components import sound as spectrogram
from app.routing_query import RoutingFiles, RoutingFilter
from harmonifuse_core.runs import RunFolder

QUESTION = "What did the model make of this one utterance, and which layers and moments did it use?"
MOST_OFFERED = 50


def page() -> None:
    run = frame.open_page("Utterance", QUESTION)
    if run is None:
        return
    files = services.routing_files(run)
    plain.notes("routing", files.problems)
    if not files.paths:
        path = shlex.quote(f"runs/{run.name}")
        plain.empty(
            "No routing is logged in this run",
            "Routing keeps, for each utterance and task, the weights of every layer beside the answer. Write it with:",
            f"python -m harmonifuse_core.evaluate --run {path} --manifest M.jsonl --split test --save test",
        )
        return
    identifier = choose(files)
    if identifier is None:
        st.caption("Choose an utterance. The address of this page then leads back to it.")
        return
    rows = services.logged_utterance(files, identifier)
    if rows.empty:
        plain.problem("utterance", "This run has not logged that utterance.", state.shortened(identifier, 200),
                      "Search for another one above, or choose another run in the sidebar.")  # fmt: skip
        return
    everything(run, rows, identifier)


def choose(files: RoutingFiles) -> str | None:
    """The utterance of the address, and a search for another one."""
    named = state.link().utterance
    with st.expander("Find an utterance", expanded=named is None):
        text = st.text_input("Text, id or speaker contains", key="utterance_text", max_chars=200)
        found = services.routing_page(files, RoutingFilter(text=text), 1)
        offered = list(dict.fromkeys(map(str, found.rows["utterance"])))[:MOST_OFFERED]
        chosen = st.selectbox("Utterance", offered, index=None, placeholder=f"first {len(offered)}", key="utterance_id")
    if chosen is not None and (named is None or chosen != st.session_state.get("utterance_taken")):
        st.session_state["utterance_taken"] = chosen  # a later link may lead elsewhere
        state.set_link(utt=chosen)
        return chosen
    return named


def everything(run: RunFolder, rows, identifier: str) -> None:
    with st.container(key="facts-utterance"):
        st.text(f"{identifier}\n{logged_utterance.facts(rows.iloc[0])}")
    clip = services.recorded(rows["audio"].iloc[0] if "audio" in rows else None)
    one_utterance.sound(clip)
    one_utterance.answers(rows)
    st.fragment(one_utterance.layer_weights)(run, rows, identifier)
    if clip is not None:
        spectrogram.show(clip, run.name)
    st.fragment(one_utterance.damage)(run, clip, identifier)
    st.fragment(one_utterance.attribution)(run, clip, rows, identifier)
    st.fragment(neighbours.show)(run, logged_utterance.route_of(rows), "logged", identifier)
    st.caption("Link to this page, behind the address of this dashboard:")
    st.code(state.address("utterance", run=run.name, utt=identifier), language=None, wrap_lines=True)


page()
