"""Probes: what does each layer hold, does a task use it there, and is it more than the input gives?"""

from app.components import frame, joined, probing, views

QUESTION = "What does each layer hold, is it more than the input gives, and does a task use it there?"
VIEWS = {
    "found": "What was found", "joined": "Joined with alpha and damage", "layers": "Layer curves", "sets": "Layer sets",
    "confusion": "Confusion", "erasure": "Erasure",
}  # fmt: skip


def page() -> None:
    run = frame.open_page("Probes", QUESTION)
    if run is None:
        return
    chosen = probing.choose(run)
    if chosen is None:
        return
    name, found = chosen
    stem = f"{run.name}-{name}"
    view, place = views.opened("probes-view", VIEWS)
    with place:
        if view == "joined":
            joined.show(run, name)
        elif view == "confusion":
            probing.confusion(run, name, found, stem)
        else:
            parts = {"found": probing.verdict, "layers": probing.layers, "sets": probing.sets}
            parts.get(view, probing.erasure)(found, stem)


page()
