"""Layer weights of logged utterances: tasks side by side, their difference, groups; each with its table and export."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import streamlit as st

from app import layer_tables, services, state, tables
from app.components import chart, choices, logged
from app.components.closed import closed_table
from app.components.columns import number_columns
from app.components.export import downloads
from app.components.plain import empty
from app.figures import weights
from app.routing_index import EVALUATION, FIELDS, Filter, RoutingIndex
from app.routing_query import RoutingFiles
from app.routing_views import GROUPS, Means
from harmonifuse_core.runs import RunError, RunFolder

MEAN, SPREAD, SEEDS = "mean", "utterances", "seeds"
SHOWN = {MEAN: "mean", SPREAD: "spread over utterances", SEEDS: "spread over seeds"}
PARTS = {"alpha": "alpha", "share": "effective share"}
HOW_TO_READ = """
- **Alpha** is the weight of a layer, **effective share** alpha times the length of the state it weighs, scaled to sum
  1. A row sums to 1. Layer *input* is the state before the first block, layer k the output of block k.
- **Spread over utterances** is the standard deviation of a weight from one utterance to the next; 0 means that the
  weight does not look at the recording. **Over seeds**: of the runs' means, where runs of the same config exist.
- Tasks are compared over what each was asked: if corpora differ by task, choose one evaluation, or look at
  *Difference*, which pairs the tasks on the same utterances.
- A weight says what was mixed in, not what would be missed.
"""


def scope(index: RoutingIndex) -> Filter:
    """The evaluation that the page looks at; all of them by default."""
    names = index.facets[EVALUATION]
    chosen = choices.ANY
    if len(names) > 1:
        chosen = choices.select("Evaluation", EVALUATION, [choices.ANY, *names], choices.ANY)
    return Filter(fields=() if chosen == choices.ANY else ((EVALUATION, chosen),))


def parts_of(index: RoutingIndex) -> list[str]:
    return list(PARTS) if index.has_share else ["alpha"]


def show_tasks(run: RunFolder, files: RoutingFiles, index: RoutingIndex, wanted: Filter) -> None:
    """Task x layer, alpha beside effective share, for encoder and LM."""
    what = choices.segments("Show", "value", list(SHOWN), MEAN, SHOWN.get)
    found = {
        (stage, part): services.group_means(files, _staged(wanted, stage), part)
        for stage in index.layers for part in parts_of(index)
    }  # fmt: skip
    st.caption(logged.counted(index))
    if what == SEEDS:
        _seeds(run, found, wanted)
        return
    grids = {key: means.mean if what == MEAN else means.std for key, means in found.items()}
    names = {key: [f"{n.upper()} ({c:,})" for n, c in zip(m.names, m.n, strict=True)] for key, m in found.items()}
    figures = _maps(grids, names, what)
    _table("layer-weights", f"{run.name}-layer-weights", layer_tables.means_table(found), figures)


def _staged(wanted: Filter, stage: str) -> Filter:
    return Filter(wanted.task, stage, wanted.fields, wanted.text)


def _maps(grids: Mapping, names: Mapping, what: str) -> dict:
    """One row of maps a stage; all of them on one colour scale, which the first line names."""
    maximum, figures = weights.range_of(*grids.values()), {}
    meaning = "Standard deviation" if what != MEAN else "Weight"
    st.caption(f"{meaning}, from 0 (dark) to {maximum:g} (yellow) on all maps; answers in brackets.")
    for stage in dict.fromkeys(stage for stage, _ in grids):
        mine = [part for s, part in grids if s == stage]
        wide = grids[stage, mine[0]].shape[1] > chart.NARROW
        places = [st.container() for _ in mine] if wide else st.columns(len(mine), gap="medium")
        for place, part in zip(places, mine, strict=True):
            with place:
                title = f"{tables.STAGES[stage]} · {PARTS[part]}"
                st.subheader(title, anchor=False)
                grid = grids[stage, part]
                figures[title] = figure = weights.named_layers(grid, names[stage, part], maximum, state.theme(), part)
                alt = f"{title}: {SHOWN[what]} of each layer; the table below has the numbers"
                chart.show(figure, f"layers-{stage}-{part}", alt, chart.roomy(grid.shape[1]))
    return figures


def _seeds(run: RunFolder, own: Mapping, wanted: Filter) -> None:
    found, lacking = {}, []
    others = services.seeds_of(run)
    for key in own:
        means = {}
        for other in others:
            files = services.routing_files(other)
            try:
                means[other.name] = services.group_means(files, _staged(wanted, key[0]), key[1])
            except (RunError, KeyError):
                lacking.append(other.name)
        if (spread := layer_tables.seed_spread(means)) is not None:
            found[key] = spread
    if not found:
        _one_seed(run)
        return
    runs = ", ".join(next(iter(found.values())).runs)
    st.text(f"Standard deviation over {len(next(iter(found.values())).runs)} runs: {runs}")
    if lacking:
        st.text(f"Left out, since they have no usable routing: {', '.join(sorted(set(lacking)))}")
    names = {key: [name.upper() for name in spread.names] for key, spread in found.items()}
    figures = _maps({key: spread.std for key, spread in found.items()}, names, SEEDS)
    _table("seed-weights", f"{run.name}-weights-over-seeds", layer_tables.seed_table(found), figures)


def _one_seed(run: RunFolder) -> None:
    name = run.name
    empty(
        "One seed only", "No second run of the same config with another seed has logged routing. Train and score one:",
        f"python -m harmonifuse_core.train --config runs/{name}/config.yaml --run runs/{name}-seed-1 training.seed=1",
        f"python -m harmonifuse_core.evaluate --run runs/{name}-seed-1 --manifest M.jsonl --split test --save test",
    )  # fmt: skip


def show_difference(run: RunFolder, files: RoutingFiles, index: RoutingIndex, wanted: Filter) -> None:
    """One task minus another on the same utterances, centred at 0."""
    if len(index.tasks) < 2:
        st.info("One task is logged; a difference needs two.")
        return
    left, right = st.columns(2)
    with left:
        first = choices.select("Task", "task", index.tasks, index.tasks[0], str.upper)
    rest = [task for task in index.tasks if task != first]
    with right:
        second = choices.select("minus", "other", rest, rest[0], str.upper)
    found = {
        (stage, part): services.task_difference(files, _staged(wanted, stage), part, first, second)
        for stage in index.layers for part in parts_of(index)
    }  # fmt: skip
    if not any(means.n for means in found.values()):
        st.info(f"No utterance was answered for both {first.upper()} and {second.upper()} here. Choose an evaluation "
                "that asked both tasks, or log one with `evaluate --tasks`.")  # fmt: skip
        return
    figures = {}
    for stage in index.layers:
        parts = [part for part in parts_of(index) if found[stage, part].n]
        width = index.layers[stage]
        if not parts:
            continue
        grid = np.concatenate([found[stage, part].mean for part in parts])
        title = f"{tables.STAGES[stage]}: {first.upper()} minus {second.upper()}"
        st.subheader(title, anchor=False)
        names = [PARTS[part] for part in parts]
        figures[title] = figure = weights.difference(grid, names, state.theme(), name="difference")
        chart.show(figure, f"difference-{stage}", f"{title}; the table below has numbers", chart.roomy(width))
    count = next(means.n[0] for means in found.values() if means.n)
    st.caption(f"Mean of paired differences over {count:,} utterances; the table has their standard deviation.")
    table = layer_tables.means_table({k: m for k, m in found.items() if m.n}, "difference")
    _table("difference", f"{run.name}-{first}-minus-{second}", table.rename(columns={"answers": "utterances"}), figures)


def show_groups(run: RunFolder, files: RoutingFiles, index: RoutingIndex, wanted: Filter) -> None:
    """One task's weights split by label, speaker, gender, intensity, corpus, ..."""
    fields = [name for name in GROUPS if len(index.facets[name]) > 1]
    if not fields:
        st.info("The routing files hold no field with two values to split by.")
        return
    left, middle, right = st.columns(3)
    with left:
        task = choices.select("Task", "task", index.tasks, index.tasks[-1], str.upper)
    with middle:
        stage = choices.select("Stage", "stage", list(index.layers), list(index.layers)[0], tables.STAGES.get)
    with right:
        by = choices.select("Split by", "by", fields, fields[0], FIELDS.get)
    chosen = Filter(task, stage, wanted.fields)
    found = {(stage, part): services.group_means(files, chosen, part, by) for part in parts_of(index)}
    means: Means = found[stage, "alpha"]
    if not means.n:
        st.info(f"No answer of {task.upper()} has the field {FIELDS[by].lower()} here. Choose another one.")
        return
    if means.left_out:
        st.caption(f"The {len(means.n)} largest groups; {means.left_out} smaller ones are left out.")
    names = {key: [f"{n} ({c:,})" for n, c in zip(m.names, m.n, strict=True)] for key, m in found.items()}
    figures = _maps({key: m.mean for key, m in found.items()}, names, MEAN)
    table = layer_tables.means_table(found, by)
    _table("groups", f"{run.name}-{task}-{stage}-by-{by}", table, figures)


def _table(key: str, stem: str, table: pd.DataFrame, figures: dict) -> None:
    numbers = [name for name in table if pd.api.types.is_float_dtype(table[name])]
    closed_table("Table of numbers", key, table, height=300, column_config=number_columns(numbers, 5))
    downloads(key, stem, table, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)
