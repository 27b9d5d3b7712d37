"""Study: which claims do the experiments support, and by how much?"""

from app.components import finding, plain, studies, views
from app.services import result_files

QUESTION = "Which claims do the experiments support, and by how much?"
VIEWS = {"claims": "Claims", "scores": "Scores", "weights": "Layer weights", "costs": "Costs and rows"}
COMMAND = "python -m harmonifuse_core.study harmonifuse_core/configs/studies/e2.yaml"


def page() -> None:
    views.head("Study", QUESTION)
    found = result_files.studies()
    if not found:
        plain.empty(
            "There is no study yet",
            "A study trains and scores a grid of systems and seeds, and tests claims about them. It takes hours; the "
            "same command goes on where it was stopped. Shipped ones are in `harmonifuse_core/configs/studies`:",
            COMMAND,
        )
        return
    folder = studies.choose(found)
    result, _ = finding.read("study", result_files.study, folder)
    if result is None:
        studies.progress(folder, None)
        return
    with_title(result)
    view, place = views.opened("study-view", VIEWS)
    with place:
        if view == "claims":
            studies.claims(result, folder.name)
        elif view == "scores":
            studies.scores(result, folder.name)
        elif view == "weights":
            studies.weights(result, folder.name)
        else:
            studies.costs(folder, result, folder.name)
    studies.progress(folder, result)


def with_title(result) -> None:
    title = result.record.get("title") or result.result.name
    plain.lines("study-title", [str(title), result.result.question])
    finding.basis("study", result)


page()
