"""Prompt lab: does the prompt decide anything, and which of its words?"""

import streamlit as st

from app.components import finding, frame, lab, needs, views

QUESTION = "Does the prompt decide anything: the weights, the answer, or its errors? And which of its words?"
VIEWS = {"batch": "Over a corpus", "live": "One recording, live", "tokens": "Prompt tokens"}
WHY = (
    "The batch crossing asks every prompt (own, paraphrases, other tasks', nonsense, none) under every task's id, over "
    "a corpus, and gives intervals. One recording can be tried live in the next tab without it."
)
TOKENS_WHY = "The attribution analysis takes prompt tokens away one at a time, and asks what each answer loses."


def page() -> None:
    run = frame.open_page("Prompt lab", QUESTION)
    if run is None:
        return
    view, place = views.opened("prompt-lab-view", VIEWS)
    with place:
        if view == "live":
            lab.live(run)
        elif view == "batch":
            found = finding.analysis(run, "prompts", "No batch crossing of prompts and tasks", WHY)
            if found is not None:
                lab.batch(found, run.name)
        else:
            st.caption(
                "What the answer loses without each token. Which words move *alpha* is asked live: *One recording, "
                "live*, switch *Leave out each word*."
            )
            found = finding.analysis(run, "attribution", "No attribution", TOKENS_WHY)
            if found is not None:
                needs.prompt_tokens(found, run.name)


page()
