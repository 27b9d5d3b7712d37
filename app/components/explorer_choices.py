"""What the routing explorer shows: the boxes that choose it, and what they stand at, whether they are made or not.

A choice makes the parts of the page again that show its effect, never the boxes: twelve and more of them take a browser
longer than the points.
"""

from dataclasses import dataclass

import streamlit as st

from app import state, tables
from app.components import choices
from app.routing_index import FIELDS, NUMBERS, Filter, RoutingIndex
from app.routing_views import GROUPS, MOST_POINTS, PLACES

FIGURE, TABLE = "explorer-figure-part", "explorer-table-part"  # keys of the fragments that show the effect
COLOURS = FIELDS | {name: name.capitalize() for name in NUMBERS} | {"entropy": "Entropy", "centre": "Centre of mass"}
SIZES = tuple(str(size) for size in MOST_POINTS)
TEXT = "text"
SELECTED = "explorer-selected"  # places of the selected points, as the table shows them


@dataclass(frozen=True)
class View:
    """place: a key of PLACES. colour: a column. most: points drawn at once. wanted: the filter."""

    place: str
    colour: str
    most: int
    wanted: Filter


def show(index: RoutingIndex) -> None:
    """The boxes."""
    columns = st.columns([1, 1, 1, 1, 0.7])
    with columns[0]:
        choices.select("Task", "task", index.tasks, index.tasks[-1], str.upper, _narrowed)
    with columns[1]:
        choices.select("Stage", "stage", list(index.layers), list(index.layers)[-1], tables.STAGES.get, _narrowed)
    with columns[2]:
        choices.select("Plane", "place", list(PLACES), "pca", PLACES.get, _narrowed)
    with columns[3]:
        options = _colours(index)
        choices.select("Colour", "colour", options, _first(options), COLOURS.get, _coloured)
    with columns[4]:
        choices.select("Points at most", "most", SIZES, SIZES[0], lambda size: f"{int(size):,}", _narrowed)
    _filter(index)


def chosen(index: RoutingIndex) -> View:
    """What the boxes stand at. The filter's boxes are made when they are opened; until then the address says it."""
    colours, stages = _colours(index), list(index.layers)
    values = ((name, state.chosen(name, index.facets[name], choices.ANY)) for name in _fields(index))
    return View(
        state.chosen("place", list(PLACES), "pca"),
        state.chosen("colour", colours, _first(colours)),
        int(state.chosen("most", SIZES, SIZES[0])),
        Filter(
            state.chosen("task", index.tasks, index.tasks[-1]), state.chosen("stage", stages, stages[-1]),
            tuple((name, value) for name, value in values if value != choices.ANY), state.text_of(TEXT),
        ),
    )  # fmt: skip


def _narrowed() -> None:
    st.rerun([FIGURE, TABLE])


def _coloured() -> None:
    """Colours change no row; but another figure starts without a selection, which the table would still show."""
    st.rerun([FIGURE, TABLE] if st.session_state.get(SELECTED) else [FIGURE])


def _filter(index: RoutingIndex) -> None:
    fields = _fields(index)
    linked = any(name in st.query_params for name in (*fields, TEXT))
    shut = st.expander(
        "Filter", expanded=linked, key="explorer-filter", icon=":material/filter_alt:", on_change="rerun"
    )  # fmt: skip
    if not shut.open:
        return
    with shut:
        choices.text("Id, text, speaker or file contains", TEXT, _narrowed)
        for start in range(0, len(fields), 4):
            for column, name in zip(st.columns(4), fields[start : start + 4], strict=False):
                with column:
                    options = [choices.ANY, *index.facets[name]]
                    choices.select(FIELDS[name], name, options, choices.ANY, then=_narrowed)


def _fields(index: RoutingIndex) -> list[str]:
    return [name for name in FIELDS if len(index.facets[name]) > 1]


def _colours(index: RoutingIndex) -> list[str]:
    return [*(name for name in GROUPS if index.facets[name]), *NUMBERS, "entropy", "centre"]


def _first(options: list[str]) -> str:
    return next((name for name in ("label", "outcome", "dataset") if name in options), options[0])
