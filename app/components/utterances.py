"""Logged utterances: filter, page, choose one, see its weights, link to it."""

import shlex
from zlib import crc32

import streamlit as st

from app import logged_utterance, services, state, tables
from app.comparison import word_difference
from app.components import chart, plain
from app.components.closed import closed_table
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import weights
from app.routing_query import RoutingFiles, RoutingFilter
from harmonifuse_core.config import Config
from harmonifuse_core.runs import RunFolder

ANY = "any"


def show(run: RunFolder, config: Config | None) -> None:
    files = services.routing_files(run)
    plain.notes("routing", files.problems)
    if not files.paths:
        path = shlex.quote(f"runs/{run.name}")
        plain.empty(
            "No routing is logged in this run",
            "Routing keeps, for each utterance and task, the weights of every layer beside the answer. Write it with:",
            f"python -m harmonifuse_core.evaluate --run {path} --manifest M.jsonl --split test --save test",
        )
        return
    st.caption("Choose a row to see the weights of that utterance. The address of this page then leads back to it.")
    chosen = _table(run, files)
    if chosen is not None:
        state.set_link(utt=chosen)
    identifier = chosen or state.link().utterance
    if identifier:
        detail(run, config, files, identifier)


def _filters(files: RoutingFiles) -> RoutingFilter:
    facets, values = services.routing_facets(files), {}
    columns = st.columns([0.34, 0.18, 0.18, 0.14, 0.16], vertical_alignment="bottom")
    with columns[0]:
        values["text"] = st.text_input("Text, id or speaker contains", key="routing_text", max_chars=200)
    for column, name in zip(columns[1:4], ("dataset", "split", "task"), strict=True):
        with column:
            chosen = st.selectbox(name.capitalize(), [ANY, *facets[name]], key=f"routing_{name}")
            values[name] = "" if chosen == ANY else chosen
    with columns[4]:
        values["errors"] = st.toggle("Only errors", key="routing_errors")
    return RoutingFilter(**values)


def _table(run: RunFolder, files: RoutingFiles) -> str | None:
    """The filtered, paged table; returns the utterance of the row that was chosen just now."""
    wanted = _filters(files)
    place = f"{run.name}-{crc32(repr(wanted).encode()):x}"  # another filter starts at its first page
    page = services.routing_page(files, wanted, st.session_state.get(f"routing-page-{place}", 1))
    if not page.total:
        st.info("No logged utterance fits this filter. Loosen it.", icon=":material/filter_alt_off:")
        return None
    config = number_columns(("error", "probability"), 2) | number_columns(("duration",), 1)
    table = page.rows.dropna(axis="columns", how="all")
    event = st.dataframe(
        table, hide_index=True, height=min(420, 40 + 35 * len(table)), on_select="rerun", selection_mode="single-row",
        key=f"routing-table-{place}-{page.page}", column_config=config,
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{page.total} answers, page {page.page} of {page.pages}")
        if page.pages > 1:
            st.pagination(page.pages, key=f"routing-page-{place}")
    downloads("routing", f"{run.name}-utterances-page-{page.page}", table)
    rows = event.selection.rows
    return str(table.iloc[rows[0]]["utterance"]) if rows and rows[0] < len(table) else None


def detail(run: RunFolder, config: Config | None, files: RoutingFiles, identifier: str) -> None:
    """One utterance: answers against references, both stages' weights of every task, its address."""
    st.subheader("Utterance", anchor=False)
    rows = services.logged_utterance(files, identifier)
    if rows.empty:
        plain.problem("utterance", "This run has not logged that utterance.", state.shortened(identifier, 200),
                      "Choose one from the table above, or another run in the sidebar.")  # fmt: skip
        return
    with st.container(key="facts-utterance"):
        st.text(identifier)
        st.text(logged_utterance.facts(rows.iloc[0]))
    for row in rows[rows["stage"] == "encoder"].itertuples():
        _answer(row)
    part = st.segmented_control("Show", list(weights.PART_TITLES), default="alpha", required=True,
                                format_func=weights.PART_TITLES.get, key="utterance_part")  # fmt: skip
    part = part if part in rows.columns else "alpha"
    figures, grids = {}, {stage: logged_utterance.grid(rows, stage, part) for stage in tables.STAGES}
    maximum = weights.range_of(*(grid for _, grid in grids.values() if len(grid)))
    for column, (stage, (tasks, grid)) in zip(st.columns(2, gap="medium"), grids.items(), strict=True):
        if len(grid):
            with column:
                st.markdown(f"**{tables.STAGES[stage]}**")
                figures[tables.STAGES[stage]] = figure = weights.task_layers(grid, tasks, maximum, state.theme(), part)
                width = chart.roomy(grid.shape[1])
                chart.show(figure, f"utterance-{stage}", weights.described(grid, tasks, tables.STAGES[stage]), width)
    table = logged_utterance.weights_table(rows)
    closed_table("Table of weights", "utterance", table, column_config=number_columns(tables.PARTS))
    downloads("utterance", f"{run.name}-{identifier}", table, figures)
    st.page_link(
        "views/utterance.py", label="Everything about this utterance", icon=":material/open_in_new:",
        query_params={"run": run.name, "utt": identifier},
    )  # fmt: skip
    st.caption("Link to this utterance, behind the address of this dashboard:")
    st.code(state.address("run", run=run.name, utt=identifier), language=None, wrap_lines=True)


def _answer(row) -> None:
    prediction, reference = (getattr(row, name, None) for name in ("prediction", "reference"))
    st.markdown(f"**{str(row.task).upper() if str(row.task).isidentifier() else 'Task'}**")
    if not isinstance(reference, str):
        with st.container(key=f"plain-answer-{row.Index}"):
            st.text(f"{prediction}\n(no reference)")
    elif " " in reference or " " in str(prediction):
        plain.word_changes(word_difference(reference, str(prediction)))
        st.caption("From the reference to the answer: − words it missed, + words it put in.")
    else:
        verdict = "right" if prediction == reference else "wrong"
        with st.container(key=f"plain-answer-{row.Index}"):
            st.text(f"{prediction} (reference: {reference}, {verdict})")
