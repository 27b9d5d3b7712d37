"""Run: what is this run, and can its numbers be trusted?"""

import streamlit as st

from app import services, state, tables
from app.checks import checks
from app.components import curves, frame, origin, plain, report, results, summary, utterances, views
from app.main_scores import main_scores
from harmonifuse_core.config import Config
from harmonifuse_core.runs import RunError, RunFolder

QUESTION = "What is this run, and can its numbers be trusted?"
VIEWS = {
    "results": "Results", "classes": "Classes", "training": "Training", "weights": "Layer weights",
    "utterances": "Utterances", "card": "Model card", "settings": "Settings",
}  # fmt: skip
VIEW = "run_view"


def page() -> None:
    run = frame.open_page("Run", QUESTION)
    if run is None:
        return
    config = readable_config(run)
    metrics = services.metrics_rows(run)
    evaluations, damaged = services.evaluations(run)
    table = tables.results_table(evaluations)
    summary.identity(run, config)
    report.button(run, config)
    summary.main_numbers(main_scores(config, evaluations))
    plain.notes("evaluations", damaged)
    summary.trust(checks(config, metrics, evaluations))
    if state.link().utterance and not state.link().view and VIEW not in st.session_state:
        st.session_state[VIEW] = VIEWS["utterances"]
    view, place = views.opened(VIEW, VIEWS)
    with place:
        show(view, run, config, metrics, table, evaluations)


def show(view: str, run: RunFolder, config: Config | None, metrics: list, table, evaluations: dict) -> None:
    """Only the open tab is made."""
    if view == "results":
        if len(table):
            results.show(table, run.name)
        else:
            summary.no_results(run)
    elif view == "classes":
        results.class_results(evaluations, run.name)
    elif view == "training":
        curves.show(metrics, run)
    elif view == "weights" and config is not None:
        curves.show_alpha(metrics, config, run)
    elif view == "utterances":
        st.fragment(utterances.show)(run, config)
    elif view == "card":
        origin.card(run)
    else:
        origin.settings(run, config)


def readable_config(run: RunFolder) -> Config | None:
    try:
        return services.config_of(run)
    except RunError as error:
        plain.problem("config", "The config of this run cannot be read. What else it holds is shown below.", str(error))
        return None


page()
