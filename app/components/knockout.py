"""What if a layer were missing: remove one of the encoder, of the LM, or each in turn, and see the answers change."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app import services, state, tables
from app.comparison import word_difference
from app.components import chart, plain
from app.components.answer import title_of
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import classes
from app.figures.utterance import damage as damage_figure
from app.palette import shared_extent
from harmonifuse_core.analysis.knockout import Damage
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.inference.predict import Answers
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput
from harmonifuse_core.runs import RunError, RunFolder

NONE = "none"
HOW_TO_READ = """
- A removed layer's alpha becomes 0 and the other weights are scaled up to sum 1, for the language model at every token.
  A language model layer is taken out of the *fusion*, not out of the model's own computation.
- **Damage** is the rise of the loss of the intact answer, in nats: 0 means the layer was not missed, 0.7 that the
  answer became half as likely, below 0 that it became likelier. For text it is the mean over tokens.
- One utterance is an anecdote. `python -m harmonifuse_core.analyse --only faithfulness` measures this over a corpus,
  with intervals and a verdict.
"""


def show(run: RunFolder, model: HarmoniFuse, clip: Clip) -> None:
    """Two selectors, what changed, and on demand the damage of every layer."""
    st.header("What if a layer were missing?", anchor=False)
    chosen = {}
    counts = {"encoder": model.encoder.layers + 1, "lm": model.lm.layers + 1}
    for column, (stage, count) in zip(st.columns(2, gap="medium"), counts.items(), strict=True):
        names = [NONE, *tables.layer_names(count)]
        with column:
            label = f"Remove a layer of the {tables.STAGES[stage].lower()}"
            name = st.selectbox(label, names, key=f"knockout-{run.name}-{stage}")
        chosen[stage] = names.index(name) - 1 if name in names[1:] else None
    try:
        if any(layer is not None for layer in chosen.values()):
            after = services.without_layers(run, clip, chosen["encoder"], chosen["lm"])
            changed(services.without_layers(run, clip, None, None), after)
        else:
            st.caption("Nothing is removed. Choose a layer: what changes in transcript and emotion shows here.")
        if clip.seconds > model.config.max_seconds:
            st.caption(
                f"Of this long recording only the first piece, {model.config.max_seconds:g} s at most, is heard here."
            )
        each(run, clip)
    except (RunError, ValueError) as error:
        plain.problem("knockout", "The layers could not be removed.", str(error))


def changed(intact: Answers, after: Answers) -> None:
    """Each task's answer, intact against changed."""
    for column, (task, answer) in zip(st.columns(len(after), gap="large"), after.items(), strict=True):
        with column:
            st.markdown(f"**{title_of(task)}**")
            _change(intact[task], answer)


def _change(before: HarmoniFuseOutput, after: HarmoniFuseOutput) -> None:
    if before.text is not None:
        if before.text == after.text:
            st.caption("The transcript is the same, word for word.")
        else:
            plain.word_changes(word_difference(before.text, after.text))
        return
    with st.container(key=f"facts-knockout-{before.task}"):
        kept = "still" if before.label == after.label else "now"
        st.text(f"{kept} {after.label} ({after.probabilities[after.label]:.2f})")
    changes = {label: after.probabilities[label] - p for label, p in before.probabilities.items()}
    spoken = ", ".join(f"{label} {value:+.3f}" for label, value in changes.items())
    figure = classes.probability_changes(changes, state.theme())
    chart.show(figure, f"knockout-classes-{before.task}", f"Change of probabilities: {spoken}")


def each(run: RunFolder, clip: Clip) -> None:
    """A switch; behind it the damage of every layer."""
    if not st.toggle("Remove every layer once", key=f"knockout-each-{clip.sha256[:12]}"):
        return
    with st.spinner("Removing one layer after the other"):
        intact, found = services.each_layer_out(run, clip)
    table = damage_table(intact, found)
    st.caption("Rise of the loss of the intact answer, in nats, when the layer is removed.")
    heatmaps(table, f"{run.name}-{clip.sha256[:8]}-knock-out", list(intact))


def heatmaps(table: pd.DataFrame, name: str, tasks: Sequence[str]) -> None:
    """Both fusions on one scale, the table, exports. `table`: task, stage, layer, damage (nats), and more."""
    grids = {stage: damage_grid(table, stage, tasks) for stage in tables.STAGES}
    grids = {stage: (rows, grid) for stage, (rows, grid) in grids.items() if grid.size}
    extent = shared_extent(table["damage"].to_numpy(float), 0.1)
    figures = {}
    for column, (stage, (rows, grid)) in zip(st.columns(max(1, len(grids)), gap="medium"), grids.items(), strict=False):
        with column:
            title = tables.STAGES[stage]
            st.markdown(f"**{title}**")
            figures[title] = figure = damage_figure(grid, rows, extent, state.theme())
            alt = f"{title}: damage by layer; the table below has the numbers"
            chart.show(figure, f"damage-{stage}", alt, chart.roomy(grid.shape[1]))
    with st.expander("Table of damage and answers"):
        st.dataframe(table, hide_index=True, column_config=number_columns(("alpha", "damage"), 3))
    downloads("damage", name, table, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def damage_table(intact: Mapping[str, HarmoniFuseOutput], found: Sequence[Damage]) -> pd.DataFrame:
    """A row a task, stage and layer: alpha that it had, damage, and the answer without it."""
    rows = []
    for one in found:
        before, after = intact[one.task], one.answer
        said = after.text if before.text is not None else f"{after.label} ({after.probabilities[after.label]:.2f})"
        same = before.text == after.text if before.text is not None else before.label == after.label
        state_name = "input" if one.layer == 0 else str(one.layer)
        row = {"task": one.task, "stage": one.stage, "layer": one.layer, "state": state_name, "alpha": one.alpha}
        rows.append(row | {"damage": one.loss, "answer": said, "changed": "no" if same else "yes"})
    return pd.DataFrame(rows)


def damage_grid(table: pd.DataFrame, stage: str, tasks: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Tasks that have the stage, and their (K, L1) damage by layer."""
    rows = table[table["stage"] == stage].pivot_table(index="task", columns="layer", values="damage", sort=True)
    present = [task for task in tasks if task in rows.index]
    return present, rows.loc[present].to_numpy(float) if present else np.zeros((0, 0))
