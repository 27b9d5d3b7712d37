"""Logged routing: which files there are, pages of utterances, one utterance."""

from pathlib import Path

import streamlit as st

from app import routing_query
from app.routing_query import RoutingFiles, RoutingFilter, RoutingPage
from app.services.folders import TABLES_KEPT, stamp
from harmonifuse_core.runs import RunFolder


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
