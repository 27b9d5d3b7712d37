"""All runs: one table to search and sort, and for the chosen one its health and what to look at first."""

import numpy as np
import pandas as pd
import streamlit as st

from app import overview, services, state, tables
from app.components import chart, choices, summary
from app.components.export import downloads
from app.figures import weights
from app.main_scores import RULE
from app.overview import Summary
from harmonifuse_core.runs import RunError, RunFolder

PAGES = {
    "run": ("views/run.py", "Run", ":material/lab_profile:"),
    "layer_weights": ("views/layer_weights.py", "Layer weights", ":material/grid_on:"),
    "explorer": ("views/explorer.py", "Routing explorer", ":material/scatter_plot:"),
}
MOST_ADVICE = 5


def read(run: RunFolder) -> Summary:
    """What the files of one run say; a damaged file is part of the answer."""
    config, what, damaged, signatures = None, "", [], None
    try:
        config = services.config_of(run)
        what = summary.facts(config)
    except RunError as error:
        damaged.append(str(error))
    evaluations, problems = services.evaluations(run)
    try:
        signatures = services.signatures_of(run)
    except RunError as error:
        problems = [*problems, str(error)]
    routing = bool(services.routing_files(run).paths)
    return overview.summarise(
        run.name, config, what, services.metrics_rows(run), evaluations, routing, signatures, [*damaged, *problems]
    )


def show(summaries: list[Summary]) -> None:
    """The table; a row that is chosen becomes the run of all pages."""
    text = choices.text("Search", "text", placeholder="name, title, encoder, state ...")
    found = overview.matching(summaries, text)
    count = f"{len(found)} of {len(summaries)} runs" if text else f"{len(summaries)} runs"
    st.caption(f"{count}. Click a column to sort by it; choose a row to see that run's health below.")
    if not found:
        st.info("No run fits these words. Loosen them.", icon=":material/filter_alt_off:")
        return
    table = overview.table_of(found)
    key, names = f"overview-{len(found)}-{text}", [one.name for one in found]
    st.dataframe(
        table, hide_index=True, height=min(420, 40 + 35 * len(table)), selection_mode="single-row", key=key,
        on_select=lambda: _chosen(key, names), column_config=_columns(table),
    )  # fmt: skip
    downloads("overview", "runs", table)


def _chosen(key: str, names: list[str]) -> None:
    rows = st.session_state[key].selection.rows
    if rows and rows[0] < len(names):
        state.set_link(run=names[rows[0]])


def _columns(table: pd.DataFrame) -> dict:
    config = {"run": st.column_config.TextColumn(pinned=True), "health": st.column_config.TextColumn(width=170)}
    config |= {name: st.column_config.NumberColumn(format="percent") for name in ("WER", "UA") if name in table}
    for name in table:
        if name.startswith("alpha "):
            config[name] = st.column_config.BarChartColumn(
                name.removeprefix("alpha ").upper(),
                width=90,
                y_min=0,
                y_max=1,
                help="Last logged alpha, layer 0 first, from 0 to 1",
            )
    return config


def detail(found: Summary) -> None:
    """One run: facts, main numbers, alpha of every task, health in sentences, what to look at first."""
    st.header("What to look at first", anchor=False)
    with st.container(key="plain-overview-run"):
        st.text(f"{found.name}: {found.title}" if found.title != found.name else found.name)
        if found.what:
            st.caption(found.what)
    for place, advice in enumerate(found.first[:MOST_ADVICE], 1):
        with st.container(key=f"plain-advice-{place}", gap="xsmall"):
            st.text(f"{place}. {advice.why}")
            if advice.command:
                st.code(advice.command, language=None, wrap_lines=True)
            if advice.page:
                path, label, icon = PAGES[advice.page]
                st.page_link(path, label=label, icon=icon, query_params={"run": found.name})
    summary.main_numbers(found.scores)
    if len(found.scores):
        st.caption(RULE)
    _alpha(found)
    _signatures(found)
    summary.trust(list(found.checks))


def _signatures(found: Summary) -> None:
    if found.signatures is None:
        return
    st.subheader("Failure signatures", anchor=False)
    with st.container(key="plain-signatures"):
        st.text("\n".join(found.signatures) or "The analysis looked for the known ones and found none.")


def _alpha(found: Summary) -> None:
    """Last logged alpha of each task, a map a stage."""
    grids = {}
    for stage in tables.STAGES:
        mine = {name.split(" ")[0]: row for name, row in found.alpha.items() if name.endswith(f" {stage}")}
        if mine and len({len(row) for row in mine.values()}) == 1:
            grids[stage] = (list(mine), np.stack(list(mine.values())))
    if not grids:
        return
    maximum = weights.range_of(*(grid for _, grid in grids.values()))
    for column, (stage, (tasks, grid)) in zip(st.columns(len(grids), gap="medium"), grids.items(), strict=True):
        with column:
            st.subheader(f"{tables.STAGES[stage]} alpha at the last step", anchor=False)
            figure = weights.task_layers(grid, tasks, maximum, state.theme())
            alt = weights.described(grid, tasks, tables.STAGES[stage])
            chart.show(figure, f"overview-{stage}", alt, chart.roomy(grid.shape[1]))
