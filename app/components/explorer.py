"""Every logged answer as a point: choose the plane, the colour and the filter; what is selected is listed and heard."""

import pandas as pd
import streamlit as st

from app import services, state
from app.components import explorer_choices, logged, plain
from app.components.columns import number_columns
from app.components.explorer_choices import View
from app.components.export import downloads
from app.components.recording import wav_bytes
from app.figures.scatter import scatter
from app.routing_index import RoutingIndex
from app.routing_query import RoutingFiles
from app.routing_views import PLACES, SAMPLE, Points
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
    """In parts, of which each is made again alone: choices, figure, table."""
    st.fragment(explorer_choices.show)(index)
    st.fragment(figure, key=explorer_choices.FIGURE)(run, files, index)
    st.fragment(table, key=explorer_choices.TABLE)(run, files, index)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def figure(run: RunFolder, files: RoutingFiles, index: RoutingIndex) -> None:
    """The points of the view, and how many answers they are."""
    view = explorer_choices.chosen(index)
    try:
        found = services.routing_points(files, view.wanted, view.place, view.most)
    except ValueError as error:
        st.info(str(error), icon=":material/scatter_plot:")
        return
    st.caption(_counted(index, found, view.place))
    if not found.total:
        st.info("No logged answer fits this filter. Loosen it.", icon=":material/filter_alt_off:")
        return
    drawn = found.table[[*dict.fromkeys(("x", "y", "utterance", view.colour))]]
    figure = scatter(drawn, view.colour, _axes(found, view.place), state.theme())
    alt = f"{len(found.table)} logged answers, {PLACES[view.place]}, coloured by {view.colour}; the table lists them"
    st.plotly_chart(
        figure, theme=None, key=_key(run, view), alt=alt, config=SELECT, on_select=_selected,
        selection_mode=("points", "lasso", "box"),
    )  # fmt: skip
    downloads("explorer-figure", f"{run.name}-explorer", None, {PLACES[view.place]: figure})


def _key(run: RunFolder, view: View) -> str:
    return f"explorer-{abs(hash((run.name, view)))}"  # another view starts without a selection


def _selected() -> None:
    st.rerun(explorer_choices.TABLE)


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


def table(run: RunFolder, files: RoutingFiles, index: RoutingIndex) -> None:
    """The rows of the points that are selected, or of all, and the utterance that was chosen among them."""
    view = explorer_choices.chosen(index)
    try:
        found = services.routing_points(files, view.wanted, view.place, view.most)
    except ValueError:
        return  # said where the figure would stand
    if found.total:
        chosen = _rows(run, found, view, _selection(run, found, view))
        if identifier := chosen or state.link().utterance:
            heard(run, found.table, identifier)


def _selection(run: RunFolder, found: Points, view: View) -> list[int]:
    """Places of the points that are selected in the figure."""
    event = st.session_state.get(_key(run, view))
    points = event.selection.points if event else ()
    places = {int(point["customdata"][0]) for point in points if point.get("customdata")}
    st.session_state[explorer_choices.SELECTED] = selected = sorted(k for k in places if 0 <= k < len(found.table))
    return selected


def _rows(run: RunFolder, found: Points, view: View, selected: list[int]) -> str | None:
    """The table; returns the utterance that was chosen by a row, or by selecting a single point."""
    rows, wanted = found.table.iloc[selected] if selected else found.table, view.wanted
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
    chosen = None
    if event.selection.rows and event.selection.rows[0] < len(table):
        chosen = str(table.iloc[event.selection.rows[0]]["utterance"])
    elif len(selected) == 1:
        chosen = str(table.iloc[0]["utterance"])
    if chosen:
        state.set_link(utt=chosen)
    return chosen


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
