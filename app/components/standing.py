"""How this utterance's layer weights stand among the logged ones: standard deviations from their mean, and ranks."""

from collections.abc import Mapping

import numpy as np
import streamlit as st

from app import services, state, tables
from app import standing as among
from app.components import chart, logged
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import weights
from app.standing import STILL, Standing
from harmonifuse_core.neighbours import Fusion
from harmonifuse_core.runs import RunFolder

VIEW, TITLE = "standing", "among logged utterances"
EVERY = "all corpora"
WIDEST = 2.0  # standard deviations that take the full colour, where none is further away
HOW_TO_READ = f"""
- A cell is **(alpha − mean) / standard deviation**, mean and deviation over the answers that this run has logged for
  the same task and prompt: +2.0 is two standard deviations more weight than usual. How *much* a weight moves is
  in the table (alpha, mean, std): a large deviation of a weight that hardly moves is a small matter.
- **Below** is the share of the logged answers with a smaller weight. It holds for any curve; where alpha of several
  corpora differs, it and the deviation say most against one corpus.
- Weights of a row sum to 1, so they move together. Where they spread like a bell curve, one of 20 lies
  beyond ±2 by chance.
- An empty cell is a weight that does not look at the recording: its standard deviation is below {STILL:g}.
"""


def show(run: RunFolder, routes: Mapping[Fusion, np.ndarray], prompts: Mapping[str, str | None], key: str) -> None:
    """routes: {(task, stage): alpha (L1,)}. prompts: {task: what was asked}. key: unique on the page."""
    opened = logged.opened(run)
    if opened is None:
        return
    files, index = opened
    corpora = index.facets["dataset"]
    corpus = None
    if len(corpora) > 1:
        chosen = st.selectbox("Compare with", [EVERY, *corpora], key=f"standing-corpus-{key}")
        corpus = chosen if chosen != EVERY else None
    found = {}
    for (task, stage), alpha in routes.items():
        one = services.standing(files, among.asked_alike(index, task, stage, prompts.get(task), corpus), alpha)
        if one is not None:
            found[task, stage] = one
    if not found:
        st.caption(f"Fewer than {among.FEWEST} answers are logged to the same task, prompt and number of layers.")
        return
    _say(found)
    figures = _maps(routes, found, key)
    table = among.table(found)
    with st.expander("All numbers: alpha, mean and deviation of the logged answers, rank"):
        names = ("alpha", "mean", "std", "deviation", "below")
        st.dataframe(table, hide_index=True, height=300, column_config=number_columns(names))
    downloads(f"standing-{key}", f"{run.name}-among-logged", table, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def _say(found: Mapping[Fusion, Standing]) -> None:
    lines = []
    if (place := among.furthest(found)) is not None:
        (task, stage), layer = place
        one = found[task, stage]
        name, below = tables.layer_names(len(one.alpha))[layer], one.below[layer]
        rank = f"larger than in {100 * below:.0f} %" if below >= 0.5 else f"smaller than in {100 * (1 - below):.0f} %"
        lines.append(
            f"Furthest from the others: {task.upper()}, {tables.STAGES[stage].lower()}, layer {name}: alpha "
            f"{one.alpha[layer]:.3f}, logged {one.mean[layer]:.3f} ± {one.std[layer]:.3f} (mean ± standard deviation, "
            f"n = {one.n:,}), {rank} of them."
        )
    if rigid := among.still(found):
        names = ", ".join(f"{task.upper()} {tables.STAGES[stage].lower()}" for task, stage in rigid)
        lines.append(f"The same for every recording: {names}.")
    with st.container(key="facts-standing"):
        st.text("\n".join(lines))


def _maps(routes: Mapping[Fusion, np.ndarray], found: Mapping[Fusion, Standing], key: str) -> dict:
    """Encoder and LM on one scale; a row a task, empty where nothing comparable is logged."""
    moved = [np.abs(one.deviation[one.moves]) for one in found.values()]
    extent = max([WIDEST, *(float(row.max()) for row in moved if len(row))])
    stages = {stage: [task for task, s in routes if s == stage] for stage in tables.STAGES}
    wide = max(len(alpha) for alpha in routes.values()) > chart.NARROW
    places = [st.container(), st.container()] if wide else st.columns(2, gap="medium")
    figures = {}
    for place, (stage, tasks) in zip(places, stages.items(), strict=True):
        if not tasks:
            continue
        size = len(routes[tasks[0], stage])
        nothing = np.full(size, np.nan)
        grid = np.stack([found[t, stage].deviation if (t, stage) in found else nothing for t in tasks])
        names = [f"{t.upper()} ({found[t, stage].n if (t, stage) in found else 0:,})" for t in tasks]
        with place:
            st.subheader(tables.STAGES[stage], anchor=False)
            figure = weights.difference(grid, names, state.theme(), extent, "SD from the mean", "+z.1f")
            figures[tables.STAGES[stage]] = figure
            chart.show(figure, f"standing-{key}-{stage}", _described(grid, tasks, stage), chart.roomy(size))
    return figures


def _described(grid: np.ndarray, tasks: list[str], stage: str) -> str:
    parts = []
    for task, row in zip(tasks, grid, strict=True):
        if np.isfinite(row).any():
            layer = int(np.nanargmax(np.abs(row)))
            parts.append(f"{task}: furthest at layer {tables.layer_names(len(row))[layer]} ({row[layer]:+.1f})")
    return f"{tables.STAGES[stage]} weights in standard deviations from logged ones. " + "; ".join(parts)
