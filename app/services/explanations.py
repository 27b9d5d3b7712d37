"""What is worked out about one recording on demand: token times, knock-outs, attribution, neighbours by routing.

Nothing here runs before a visitor asks for it, so the first answer is as fast as without.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import streamlit as st

from app import routing_query
from app.audio_folders import data_folders, find_audio
from app.listening_queue import ListeningQueue
from app.routing_query import RoutingFiles
from app.services.folders import REPOSITORY, stamp
from app.services.models import RESULT_SECONDS, RESULTS_KEPT, Answered, answer, loaded, on_worker
from app.services.recordings import decode
from harmonifuse_core.analysis.alignment import Alignment, align
from harmonifuse_core.analysis.attribution import Attribution, attribute
from harmonifuse_core.analysis.knockout import Damage, Listened, answer_without, knock_out_each, listen
from harmonifuse_core.data.audio import AudioError, Clip, load_audio
from harmonifuse_core.inference.predict import Answers
from harmonifuse_core.neighbours import Fusion, Neighbour, Routes, nearest, read_routes
from harmonifuse_core.runs import RunFolder

HEARD_KEPT, ROUTES_KEPT = 4, 2
WINDOW_SECONDS = 0.1


def _key(run: RunFolder) -> tuple[str, str]:
    return str(run.path), stamp(run.weights_index, run.config_file)


def aligned(run: RunFolder, clip: Clip, task: str) -> Alignment:
    """Token times of a transcription task's answer under its default prompt. Raises RunError, ValueError."""
    return _aligned(clip.sha256, *_key(run), task, loaded(run).model, clip.waveform)


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _aligned(digest: str, path: str, stamp_: str, task: str, _model, _waveform: np.ndarray) -> Alignment:
    return on_worker(align, _model, _waveform, task)


@st.cache_resource(max_entries=HEARD_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _heard(digest: str, path: str, stamp_: str, _model, _waveform: np.ndarray) -> Listened:
    return on_worker(listen, _model, _waveform)


def heard(run: RunFolder, clip: Clip) -> Listened:
    """The recording, encoded once for every knock-out. Raises RunError, ValueError."""
    return _heard(clip.sha256, *_key(run), loaded(run).model, clip.waveform)


def without_layers(run: RunFolder, clip: Clip, encoder: int | None, lm: int | None) -> Answers:
    """Answers with these layers removed, None for none. Raises RunError, ValueError."""
    return _without(clip.sha256, *_key(run), encoder, lm, loaded(run).model, heard(run, clip))


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _without(digest, path, stamp_, encoder: int | None, lm: int | None, _model, _heard: Listened) -> Answers:
    return on_worker(answer_without, _model, _heard, {"encoder": encoder, "lm": lm})


def each_layer_out(run: RunFolder, clip: Clip) -> tuple[Answers, tuple[Damage, ...]]:
    """Intact answers, and what the removal of each layer does. Raises RunError, ValueError."""
    return _each(clip.sha256, *_key(run), loaded(run).model, heard(run, clip))


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _each(digest, path, stamp_, _model, _heard: Listened) -> tuple[Answers, tuple[Damage, ...]]:
    return on_worker(knock_out_each, _model, _heard)


def attributed(run: RunFolder, clip: Clip, task: str) -> Attribution:
    """What each 0.1 s of the fused speech brings to a task's answer, by ablation. Raises RunError, ValueError."""
    return _attributed(clip.sha256, *_key(run), task, loaded(run).model, clip.waveform)


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _attributed(digest, path, stamp_, task: str, _model, _waveform: np.ndarray) -> Attribution:
    def explain():
        return attribute(_model, _waveform, task, "frame_ablation", window_seconds=WINDOW_SECONDS)

    return on_worker(explain)


# --- neighbours, saved rows, logged recordings ---


def neighbours(
    files: RoutingFiles, query: Mapping[Fusion, np.ndarray], count: int, exclude: str | None = None
) -> tuple[Neighbour, ...]:
    """Logged utterances whose alpha is closest to the query's."""
    return nearest(routes(files), query, count, exclude)


def routes(files: RoutingFiles) -> Routes:
    return _routes(files.paths, stamp(*map(Path, files.paths)))


@st.cache_resource(max_entries=ROUTES_KEPT, show_spinner=False)
def _routes(paths: tuple[str, ...], stamp_: str) -> Routes:
    return read_routes(paths)


def logged_utterances(files: RoutingFiles, identifiers: Sequence[str]) -> pd.DataFrame:
    """All rows of some utterances."""
    return routing_query.utterances(files, identifiers)


def saved_rows(run: RunFolder, analysis: str, identifier: str) -> pd.DataFrame:
    """Raw rows of one utterance in `analysis/NAME.parquet`; empty where there is no such file or it is damaged."""
    path = run.part("analysis", f"{analysis}.parquet")
    if not path.is_file():
        return pd.DataFrame()
    try:
        with routing_query.connection() as connection:
            query = "SELECT * FROM read_parquet(?) WHERE utterance = ? LIMIT 2000"
            return connection.execute(query, [str(path), identifier]).df()
    except duckdb.Error:
        return pd.DataFrame()


def recorded(name: str | None) -> Clip | None:
    """The recording of a logged utterance, where it lies below an allowed data folder and can be decoded."""
    path = find_audio(name, data_folders(REPOSITORY))
    if path is None:
        return None
    try:
        return load_audio(path, name=path.name)
    except AudioError:
        return None


def listening_queue(run: RunFolder, files: Sequence[tuple[str, bytes]]) -> ListeningQueue:
    """A started queue that answers every file with the run's default prompts. Raises RunError, ValueError."""
    prompts = tuple((task.name, task.default_prompt) for task in loaded(run).model.config.tasks)

    def hear(data: bytes, name: str) -> Answered:
        return answer(run, decode(data, name), prompts)

    return ListeningQueue(files, hear).start()
