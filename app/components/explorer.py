"""Every logged answer as a point: choose the plane, the colour and the filter; what is selected is listed and heard."""

import pandas as pd
import streamlit as st

from app import services, state, tables
from app.components import choices, logged, plain
from app.components.export import downloads
from app.components.recording import wav_bytes
from app.components.weights import number_columns
from app.figures.scatter import scatter
from app.routing_index import FIELDS, NUMBERS, Filter, RoutingIndex
from app.routing_query import RoutingFiles
from app.routing_views import GROUPS, MOST_POINTS, PLACES, SAMPLE, Points
from harmonifuse_core.runs import RunFolder

SELECT = {"displaylogo": False, "displayModeBar": True, "scrollZoom": False,
          "modeBarButtonsToRemove": ["autoScale2d", "zoomIn2d", "zoomOut2d", "toImage"]}  # fmt: skip
SHOWN = ("utterance", "label", "prediction", "reference", "outcome", "error", "probability", "speaker", "dataset",
         "gender", "intensity", "split", "duration", "entropy", "centre", "top", "x", "y", "audio", "prompt",
         "evaluations")  # fmt: skip
TABLE, LISTED = "explorer-table", "explorer-listed"  # one table for all filters: the browser changes its rows only
HOW_TO_READ = """
- **PCA of alpha**: the two directions in which the weights of this task and stage vary most, over all logged
  utterances; filters do not move the points. Points that lie together were routed alike.
- **UMAP of alpha**: neighbours among the standardised weights stay neighbours (15 neighbours, minimal distance 0.1,
  seed 0); the distance between clusters and their size mean little, and another machine may draw them elsewhere.
- **Entropy and centre of mass**: how widely an utterance's weights are spread (bits; the top is uniform), and how deep
  in the network they lie on average (layers).
- Clusters by corpus or speaker mean that the routing reads the recording's origin. Clusters by label that errors leave
  mean that it helps the task. Neither says that the layers were needed: see *Faithfulness*.
- Lasso or click in the figure, or take a row of the table (by mouse or keyboard): the table shows what is selected.
"""


def show(run: RunFolder, files: RoutingFiles, index: RoutingIndex) -> None:
    place, colour, most, wanted = _choices(index)
    try:
        found = services.routing_points(files, wanted, place, most)
    except ValueError as error:
        st.info(str(error), icon=":material/scatter_plot:")
        return
    st.caption(_counted(index, found, place))
    if not found.total:
        st.info("No logged answer fits this filter. Loosen it.", icon=":material/filter_alt_off:")
        return
    selected = _figure(run, found, colour, place, wanted)
    _table(run, found, selected, wanted)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def _choices(index: RoutingIndex) -> tuple[str, str, int, Filter]:
    columns = st.columns([1, 1, 1, 1, 0.7])
    with columns[0]:
        task = choices.select("Task", "task", index.tasks, index.tasks[-1], str.upper)
    with columns[1]:
        stage = choices.select("Stage", "stage", list(index.layers), list(index.layers)[-1], tables.STAGES.get)
    with columns[2]:
        place = choices.select("Plane", "place", list(PLACES), "pca", PLACES.get)
    groups = [name for name in GROUPS if index.facets[name]]
    names = FIELDS | {name: name.capitalize() for name in NUMBERS} | {"entropy": "Entropy", "centre": "Centre of mass"}
    options = [*groups, *NUMBERS, "entropy", "centre"]
    with columns[3]:
        colour = choices.select("Colour", "colour", options, _first(options), names.get)
    with columns[4]:
        sizes = [str(size) for size in MOST_POINTS]
        most = choices.select("Points at most", "most", sizes, sizes[0], lambda size: f"{int(size):,}")
    return place, colour, int(most), _filter(index, task, stage)


def _first(options: list[str]) -> str:
    return next((name for name in ("label", "outcome", "dataset") if name in options), options[0])


def _filter(index: RoutingIndex, task: str, stage: str) -> Filter:
    """The boxes are made when they are opened; until then the address says what is chosen."""
    fields = [name for name in FIELDS if len(index.facets[name]) > 1]
    linked = any(name in st.query_params for name in (*fields, "text"))
    shut = st.expander(
        "Filter", expanded=linked, key="explorer-filter", icon=":material/filter_alt:", on_change="rerun"
    )  # fmt: skip
    if not shut.open:
        return Filter(task, stage, *_addressed(index, fields))
    kept = []
    with shut:
        text = choices.text("Id, text, speaker or file contains", "text")
        for start in range(0, len(fields), 4):
            for column, name in zip(st.columns(4), fields[start : start + 4], strict=False):
                with column:
                    options = [choices.ANY, *index.facets[name]]
                    value = choices.select(FIELDS[name], name, options, choices.ANY)
                    kept += [] if value == choices.ANY else [(name, value)]
    return Filter(task, stage, tuple(kept), text)


def _addressed(index: RoutingIndex, fields: list[str]) -> tuple[tuple[tuple[str, str], ...], str]:
    """Fields and text of the address, as far as they are to be had here."""
    chosen = ((name, st.query_params.get(name)) for name in fields)
    return tuple((name, value) for name, value in chosen if value in index.facets[name]), state.text_of("text")


def _counted(index: RoutingIndex, found: Points, place: str) -> str:
    drawn = len(found.table)
    said = f"{found.total:,} answers fit the filter"
    if drawn < found.total:
        said += f"; {drawn:,} of them are drawn: a random sample, the same at every visit"
        said += f" (UMAP reads {SAMPLE:,} answers at most, before filtering)" if place == "umap" else ""
    return f"{said}. {logged.counted(index)}"


def _axes(found: Points, place: str) -> tuple[str, str]:
    if place == "umap":
        return "UMAP 1", "UMAP 2"
    if place != "pca" or found.plane is None:
        return "centre of mass (layer)", "entropy (bits)"
    first, second = (f"component {n} ({100 * share:.0f} % of variance)" for n, share in enumerate(found.plane.share, 1))
    return first, second


def _figure(run: RunFolder, found: Points, colour: str, place: str, wanted: Filter) -> list[int]:
    """Draw, and return the places of the points that were selected."""
    drawn = found.table[[*dict.fromkeys(("x", "y", "utterance", colour))]]
    figure = scatter(drawn, colour, _axes(found, place), state.theme())
    key = f"explorer-{abs(hash((run.name, place, colour, wanted)))}"  # another view starts without a selection
    alt = f"{len(found.table)} logged answers, {PLACES[place]}, coloured by {colour}; the table below lists them"
    event = st.plotly_chart(
        figure, theme=None, key=key, alt=alt, config=SELECT, on_select="rerun",
        selection_mode=("points", "lasso", "box"),
    )  # fmt: skip
    chosen = (int(point["customdata"][0]) for point in event.selection.points if point.get("customdata"))
    downloads("explorer-figure", f"{run.name}-explorer", None, {PLACES[place]: figure})
    return sorted({k for k in chosen if 0 <= k < len(found.table)})


def _table(run: RunFolder, found: Points, selected: list[int], wanted: Filter) -> None:
    rows = found.table.iloc[selected] if selected else found.table
    st.subheader(f"{len(selected):,} selected" if selected else f"All {len(rows):,} points", anchor=False)
    table = rows[[name for name in SHOWN if name in rows]].dropna(axis="columns", how="all").reset_index(drop=True)
    digits = number_columns(("x", "y", "error", "probability", "entropy", "centre"), 3) | number_columns(
        ("duration",), 1
    )
    shown = (run.name, wanted, tuple(selected))
    if st.session_state.get(LISTED) not in (None, shown) and TABLE in st.session_state:
        st.session_state[TABLE] = {"selection": {"rows": []}}  # other rows: the one that was chosen is not among them
    st.session_state[LISTED] = shown
    event = st.dataframe(
        table, hide_index=True, height=min(360, 40 + 35 * len(table)), on_select="rerun", selection_mode="single-row",
        key=TABLE, column_config=digits,
    )  # fmt: skip
    downloads("explorer", f"{run.name}-{wanted.task}-{wanted.stage}-points", table)
    if event.selection.rows and event.selection.rows[0] < len(table):
        state.set_link(utt=str(table.iloc[event.selection.rows[0]]["utterance"]))
    elif len(selected) == 1:
        state.set_link(utt=str(table.iloc[0]["utterance"]))
    if identifier := state.link().utterance:
        heard(run, found.table, identifier)


def heard(run: RunFolder, table: pd.DataFrame, identifier: str) -> None:
    """The chosen utterance: what was said and answered, its audio where it is on this machine, its page."""
    st.subheader("Chosen utterance", anchor=False)
    rows = table[table["utterance"] == identifier]
    with st.container(key="facts-chosen"):
        st.text(identifier)
        if rows.empty:
            st.text("It is not among the points above: it is not logged, or the filter or the sample leaves it out.")
        else:
            row = rows.iloc[0]
            st.text(f"Answer: {_said(row['prediction'])}\nReference: {_said(row['reference'])}")
    if not rows.empty:
        _audio(rows.iloc[0]["audio"])
    st.page_link("views/utterance.py", label="Open its page", icon=":material/open_in_new:",
                 query_params={"run": run.name, "utt": identifier})  # fmt: skip


def _said(value) -> str:
    return value if isinstance(value, str) and value else plain.NOT_AVAILABLE


def _audio(name) -> None:
    clip = services.recorded(name if isinstance(name, str) else None)
    if clip is None:
        st.caption("Its audio is not on this machine, below ../shared/data or a folder that HARMONIFUSE_DATA lists.")
        return
    st.audio(wav_bytes(clip), format="audio/wav", alt="The chosen utterance")
