"""Alpha at one step of training, chosen on a slider: both stages, all tasks, with the batch's own spread."""

import numpy as np
import streamlit as st

from app import layer_tables, state, tables
from app.components import chart, choices
from app.components.closed import closed_table
from app.components.columns import number_columns
from app.components.curves import nothing_logged
from app.components.export import downloads
from app.figures import weights
from harmonifuse_core.runs import RunFolder

MOST_STEPS = 200
HOW_TO_READ = """
- Mean alpha of one training batch at that step; a row sums to 1, and the colour scale holds for all steps, so move the
  slider (or its arrow keys) and watch the colours move. *Run*, tab *Layer weights*, shows all steps in one picture.
- The change is against the first logged step: blue has lost weight, orange has won.
"""


def show(rows: list[dict], run: RunFolder) -> None:
    series = {
        (stage, task): tables.alpha_over_training(rows, task, stage)
        for stage in tables.STAGES for task in tables.tasks_logged(rows)
    }  # fmt: skip
    series = {key: dict(zip(*found, strict=True)) for key, found in series.items() if found[0]}
    if not series:
        nothing_logged(run)
        return
    every = sorted({step for found in series.values() for step in found})
    steps = [str(every[k]) for k in tables.thinned(len(every), MOST_STEPS)]
    chosen = int(steps[0]) if len(steps) == 1 else int(choices.slider("Training step", "step", steps, steps[-1]))
    maximum, figures, grids = weights.range_of(*(np.stack(list(f.values())) for f in series.values())), {}, {}
    st.caption(f"Alpha from 0 (dark) to {maximum:g} (yellow), at every step.")
    for column, stage in zip(st.columns(2, gap="medium"), tables.STAGES, strict=True):
        mine = {task: _at(found, chosen) for (s, task), found in series.items() if s == stage}
        width = max((len(row) for row, _ in mine.values()), default=0)
        mine = {task: pair for task, pair in mine.items() if len(pair[0]) == width}
        if not mine:
            continue
        grid, first = (np.stack([pair[k] for pair in mine.values()]) for k in (0, 1))
        grids[stage] = (list(mine), grid)
        with column:
            title = tables.STAGES[stage]
            st.subheader(title, anchor=False)
            figures[title] = weights.task_layers(grid, list(mine), maximum, state.theme())
            chart.show(figures[title], f"step-{stage}", weights.described(grid, list(mine), title), chart.roomy(width))
            st.markdown(f"**Change since step {every[0]}**")
            names = [task.upper() for task in mine]
            figures[f"{title}, change"] = moved = weights.difference(grid - first, names, state.theme())
            chart.show(moved, f"moved-{stage}", f"{title}: change of alpha", chart.roomy(width))
    table = layer_tables.step_table(chosen, grids)
    closed_table("Table of this step", "step", table, height=300, column_config=number_columns(("alpha",), 5))
    downloads("step", f"{run.name}-alpha-step-{chosen}", table, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def _at(found: dict[int, np.ndarray], step: int) -> tuple[np.ndarray, np.ndarray]:
    """Alpha at the last logged step up to `step` (a batch need not hold every task), and at the first."""
    reached = [s for s in found if s <= step] or [min(found)]
    return found[max(reached)], found[min(found)]
