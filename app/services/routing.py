"""Logged routing: which files there are, pages of utterances, one utterance; the index, and what pages ask of it."""

import logging
import threading
from pathlib import Path

import duckdb
import numpy as np
import streamlit as st

from app import routing_index, routing_query, routing_views
from app import standing as standings
from app.routing_index import Filter, RoutingIndex
from app.routing_query import RoutingFiles, RoutingFilter, RoutingPage
from app.routing_views import Means, Points
from app.services.folders import TABLES_KEPT, stamp
from app.standing import Standing
from harmonifuse_core.runs import RunError, RunFolder

INDEXES_KEPT, ANSWERS_KEPT = 3, 128
POINTS_KEPT = 8  # views: figure and table of one ask for the same points; some megabytes each, where many are drawn
ONE_UMAP = threading.Lock()  # numba's threads end the process when two sessions call them at once

logger = logging.getLogger("harmonifuse.app")


def routing_files(run: RunFolder) -> RoutingFiles:
    paths = [run.part("routing", name) for name in run.names("routing", ".parquet")]
    return _routing_files(tuple(map(str, paths)), stamp(*paths))


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _routing_files(paths: tuple[str, ...], stamp_: str) -> RoutingFiles:
    return routing_query.routing_files([Path(p) for p in paths])


def routing_facets(files: RoutingFiles) -> dict[str, list[str]]:
    return _routing_facets(files.paths, stamp(*map(Path, files.paths)), files)


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _routing_facets(paths: tuple[str, ...], stamp_: str, _files: RoutingFiles) -> dict[str, list[str]]:
    return routing_query.facets(_files)


def routing_page(files: RoutingFiles, wanted: RoutingFilter, page: int) -> RoutingPage:
    key = tuple(vars(wanted).values())
    return _routing_page(files.paths, stamp(*map(Path, files.paths)), key, page, files, wanted)


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _routing_page(paths, stamp_, key, page: int, _files: RoutingFiles, _wanted: RoutingFilter) -> RoutingPage:
    return routing_query.page_of(_files, _wanted, page)


def logged_utterance(files: RoutingFiles, identifier: str):
    """Rows of one utterance (see `routing_query.utterance`)."""
    return routing_query.utterance(files, identifier)


# --- the index ---


def routing_index_of(files: RoutingFiles) -> RoutingIndex:
    """One index for all sessions, anew when a file changes. Raises RunError where the files hold nothing usable."""
    return _index(_key(files), files)


@st.cache_resource(max_entries=INDEXES_KEPT, show_spinner="Reading the logged routing (once for all visitors)")
def _index(key: str, _files: RoutingFiles) -> RoutingIndex:
    try:
        return routing_index.build(_files)
    except (ValueError, duckdb.Error) as error:
        logger.warning("routing cannot be indexed: %s", error)
        raise RunError(f"the routing files cannot be used ({' '.join(str(error).split())[:300]})") from error


def _key(files: RoutingFiles) -> str:
    return "|".join([*files.paths, stamp(*map(Path, files.paths))])


def group_means(files: RoutingFiles, wanted: Filter, weights: str, by: str = "task") -> Means:
    """See `routing_views.group_means`."""
    return _group_means(_key(files), wanted, weights, by, files)


@st.cache_resource(max_entries=ANSWERS_KEPT, show_spinner=False)
def _group_means(key: str, wanted: Filter, weights: str, by: str, _files: RoutingFiles) -> Means:
    return routing_views.group_means(routing_index_of(_files), wanted, weights, by)


def task_difference(files: RoutingFiles, wanted: Filter, weights: str, first: str, second: str) -> Means:
    """See `routing_views.task_difference`."""
    return _task_difference(_key(files), wanted, weights, first, second, files)


@st.cache_resource(max_entries=ANSWERS_KEPT, show_spinner=False)
def _task_difference(key: str, wanted: Filter, weights: str, first: str, second: str, _files: RoutingFiles) -> Means:
    return routing_views.task_difference(routing_index_of(_files), wanted, weights, first, second)


def standing(files: RoutingFiles, wanted: Filter, alpha: np.ndarray) -> Standing | None:
    """See `standing.standing`: milliseconds, and asked with other weights each time, so not kept."""
    return standings.standing(routing_index_of(files), wanted, alpha)


def routing_points(files: RoutingFiles, wanted: Filter, place: str, most: int) -> Points:
    """See `routing_views.points`; the plane of a task and stage is found once. Raises ValueError (UMAP of too few)."""
    return _points(_key(files), wanted, place, most, files)


@st.cache_resource(max_entries=POINTS_KEPT, show_spinner=False)
def _points(key: str, wanted: Filter, place: str, most: int, _files: RoutingFiles) -> Points:
    planes = {"pca": _plane, "umap": _embedding}
    found = planes[place](key, wanted.task, wanted.stage, _files) if place in planes else None
    return routing_views.points(routing_index_of(_files), wanted, place, found, most)


@st.cache_resource(max_entries=ANSWERS_KEPT, show_spinner=False)
def _plane(key: str, task: str, stage: str, _files: RoutingFiles) -> routing_views.Plane:
    return routing_views.plane(routing_index_of(_files), task, stage)


@st.cache_resource(max_entries=ANSWERS_KEPT, show_spinner="UMAP (half a minute, once for all visitors)")
def _embedding(key: str, task: str, stage: str, _files: RoutingFiles) -> routing_views.Embedding:
    with ONE_UMAP:
        return routing_views.embedding(routing_index_of(_files), task, stage)
