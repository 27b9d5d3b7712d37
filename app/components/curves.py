"""How training went: loss, dev scores, gradient norm and learning rate; and alpha of each task on the way."""

import shlex

import pandas as pd
import streamlit as st

from app import state, tables
from app.components import chart
from app.components.closed import closed_table
from app.components.export import downloads
from app.components.plain import empty
from app.figures import training, weights
from harmonifuse_core.config import Config
from harmonifuse_core.runs import RunFolder

PANELS = {
    "loss": "Loss of each task", "dev": "Scores on the dev corpora", "gradient norm": "Gradient norm",
    "learning rate": "Learning rate",
}  # fmt: skip
HOW_TO_READ = """
- One point a log step, of that step's batch: single points jump about, look at the trend.
- *Dev* scores are of held-out utterances: WER falls, UA rises. They chose nothing that the test splits report.
- The gradient norm is taken before clipping.
"""
ALPHA_HOW_TO_READ = """
- Mean alpha of the batch at each log step; each column sums to 1. All maps of this page share one colour scale.
- A row that never leaves its first colour was not moved by training: look at `training.gate_rate` and the start value.
- Both tasks alike over all steps: the fusion does not tell them apart.
"""


def nothing_logged(run: RunFolder) -> None:
    path = shlex.quote(f"runs/{run.name}")
    empty(
        "No training log",
        "`metrics.jsonl` is empty or missing: training writes it as it goes. Start it, or go on where it was stopped:",
        f"python -m harmonifuse_core.train --config {path}/config.yaml --run {path} --resume",
    )


def show(rows: list[dict], run: RunFolder) -> None:
    """Curves in two columns, one table and export for all of them."""
    table = tables.training_table(rows)
    if table.empty:
        nothing_logged(run)
        return
    kinds = [kind for kind in PANELS if (table["kind"] == kind).any()]
    figures = {}
    for start in range(0, len(kinds), 2):
        for column, kind in zip(st.columns(2, gap="medium"), kinds[start : start + 2], strict=False):
            with column:
                st.subheader(PANELS[kind], anchor=False)
                figures[PANELS[kind]] = figure = training.curves(table, kind, state.theme())
                chart.show(figure, f"curve-{kind.replace(' ', '-')}", f"{PANELS[kind]} over training steps")
    closed_table("Table of logged values", "training", table, height=300)
    downloads("training", f"{run.name}-training", table, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def show_alpha(rows: list[dict], config: Config, run: RunFolder) -> None:
    """For each task: encoder and LM alpha over training as maps, the same as lines, and the numbers."""
    series = {
        (task.name, stage): tables.alpha_over_training(rows, task.name, stage)
        for task in config.model.tasks for stage in tables.STAGES
    }  # fmt: skip
    series = {key: found for key, found in series.items() if found[0]}
    if not series:
        nothing_logged(run)
        return
    maximum, figures = weights.range_of(*(alpha for _, alpha in series.values())), {}
    form = st.segmented_control("Show", ["maps", "lines"], default="maps", key="alpha_form", required=True)
    for task in config.model.tasks:
        mine = [stage for stage in tables.STAGES if (task.name, stage) in series]
        for column, stage in zip(st.columns(max(1, len(mine)), gap="medium"), mine, strict=False):
            with column:
                title = f"{task.name.upper()} · {tables.STAGES[stage].lower()}"
                st.subheader(title, anchor=False)
                steps, alpha = series[task.name, stage]
                draw = weights.over_training if form == "maps" else weights.alpha_lines
                figures[title] = figure = draw(steps, alpha, maximum, state.theme())
                chart.show(figure, f"alpha-{task.name}-{stage}", f"{title}: mean alpha over training; see the table")
    table = alpha_table(series)
    closed_table("Table of alpha at every log step", "alpha-training", table, height=300)
    downloads("alpha-training", f"{run.name}-alpha-over-training", table, figures)
    with st.expander("How to read this"):
        st.markdown(ALPHA_HOW_TO_READ)


def alpha_table(series: dict) -> pd.DataFrame:
    """Long form: step, task, stage, layer, alpha."""
    parts = []
    for (task, stage), (steps, alpha) in series.items():
        part = pd.DataFrame(alpha, columns=range(alpha.shape[1]))
        part.insert(0, "step", steps)
        part = part.melt(id_vars="step", var_name="layer", value_name="alpha")
        part.insert(1, "task", task)
        part.insert(2, "stage", stage)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
