"""Faithfulness: do the layers that a task favours matter to its answer?"""

from app.components import faithful, finding, frame, needs, views
from harmonifuse_core.runs import RunFolder

QUESTION = "Do the layers that a task favours matter to its answer, or would others do as well?"
VIEWS = {
    "verdict": "Verdict", "curves": "Deletion and insertion", "agreement": "Alpha against damage", "layers": "Layers",
    "input": "Does the input matter?", "tasks": "Tasks apart", "needs": "What answers need", "signatures": "Signatures",
}  # fmt: skip
WHY = (
    "The analysis removes layers from each fusion, in the orders that alpha, effective share, norm and chance suggest, "
    "and measures what the answer loses."
)
OTHERS = {
    "input": ("input_dependence", faithful.replaced, "No analysis of input dependence",
              "It replaces alpha by weights that know less of the input, and measures what the answer loses."),
    "tasks": ("divergence", faithful.apart, "No analysis of divergence",
              "It measures how far the tasks' weights lie apart on the same audio, against chance and other seeds."),
    "needs": ("attribution", needs.answers, "No attribution",
              "It takes layers, frames and prompt tokens away one at a time, and asks what each answer needs."),
    "signatures": ("signatures", faithful.signatures, "Signatures were not looked for",
                   "Known failures (uniform or collapsed alpha, ignored prompts, class collapse) are looked for."),
}  # fmt: skip


def page() -> None:
    run = frame.open_page("Faithfulness", QUESTION)
    if run is None:
        return
    view, place = views.opened("faithfulness-view", VIEWS)
    with place:
        if view in OTHERS:
            name, show, title, why = OTHERS[view]
            found = finding.analysis(run, name, title, why)
            if found is not None:
                show(found, run.name)
            return
        found = finding.analysis(run, "faithfulness", "Faithfulness was not measured on this run", WHY)
        if found is not None:
            show_faithfulness(view, found, run)


def show_faithfulness(view: str, found, run: RunFolder) -> None:
    if view == "verdict":
        faithful.verdict(found, run.name)
    elif view == "curves":
        faithful.curves(found, run.name)
    elif view == "agreement":
        faithful.agreement(found, run.name)
    else:
        faithful.layers(found, run.name)


page()
