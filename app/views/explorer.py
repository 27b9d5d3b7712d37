"""Routing explorer: which utterances are routed alike, and what do they have in common?"""

from app.components import explorer, frame, logged

QUESTION = "Which utterances are routed alike, and what do they have in common?"


def page() -> None:
    run = frame.open_page("Routing explorer", QUESTION)
    if run is None:
        return
    found = logged.opened(run)
    if found is None:
        return
    explorer.show(run, *found)


page()
