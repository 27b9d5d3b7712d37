"""All caches, locks and loads of the dashboard. Pages and components hold nothing themselves.

One copy of a model serves every session; one worker thread runs it, so that answers queue instead of fighting for the
cores (and OpenMP keeps one pool of threads, not one for each visitor). Results are found by the sha256 of the file's
bytes, the run and the prompts: only who has the same bytes can meet the same entry. Recordings stay in their session.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
import yaml

from app import routing_query
from app.figures.sound import MOST_COLUMNS, pooled_columns
from app.routing_query import RoutingFiles, RoutingFilter, RoutingPage
from harmonifuse_core.config import Config
from harmonifuse_core.data.audio import SAMPLE_RATE, Clip, load_audio, segment
from harmonifuse_core.data.display import envelope, mel_spectrogram
from harmonifuse_core.inference.predict import Answers, PredictOptions, predict
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.runs import RunError, RunFolder, find_runs, load, open_run

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = Path(__file__).resolve().parent / "samples"
RUNS_VARIABLE = "HARMONIFUSE_RUNS"
MODELS_KEPT, RESULTS_KEPT, TABLES_KEPT = 2, 64, 32
RESULT_SECONDS = 3600.0
WARM_SECONDS = 1.5

logger = logging.getLogger("harmonifuse.app")
_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
_count_lock = threading.Lock()
_loads = 0

Prompts = tuple[tuple[str, str], ...]  # (task, prompt) pairs


@dataclass(frozen=True)
class Loaded:
    """A model in memory. seconds: what loading and warming took; number: the how-manieth load of this server."""

    model: HarmoniFuse
    seconds: float
    number: int


@dataclass(frozen=True)
class Answered:
    """What the model said. seconds: wall time of inference; pieces: segments that the audio was cut into."""

    answers: Answers
    seconds: float
    audio_seconds: float
    pieces: int
    device: str


@dataclass(frozen=True)
class Picture:
    """low, high (P,): envelope; mel (M, at most 1200) in dB."""

    low: np.ndarray
    high: np.ndarray
    mel: np.ndarray


# --- runs ---


def runs_root() -> Path:
    """`runs/` of the repository, or the folder that HARMONIFUSE_RUNS names."""
    return Path(os.environ.get(RUNS_VARIABLE) or REPOSITORY / "runs")


def runs() -> list[RunFolder]:
    return find_runs(runs_root())


def run_named(name: str) -> RunFolder:
    return open_run(name, runs_root())


def config_of(run: RunFolder) -> Config:
    """Raises RunError for whatever is wrong with config.yaml."""
    try:
        return run.config()
    except RunError:
        raise
    except (ValueError, TypeError, KeyError, OSError, yaml.YAMLError) as error:
        raise RunError(f"config.yaml of run {run.name!r} is damaged ({' '.join(str(error).split())[:300]})") from error


def is_trained(run: RunFolder) -> bool:
    """A run that logged no training step and holds no evaluation counts as untrained."""
    scored = set(run.names("evaluation", ".json")) - {"calibration.json"}  # a temperature says nothing of training
    return bool(metrics_rows(run)) or bool(scored)


def _stamp(*paths: Path) -> str:
    """Changes whenever one of the files does."""
    parts = []
    for path in paths:
        try:
            status = path.stat()
            parts.append(f"{path.name}:{status.st_mtime_ns}:{status.st_size}")
        except OSError:
            parts.append(f"{path.name}:absent")
    return "|".join(parts)


def metrics_rows(run: RunFolder) -> list[dict]:
    return _metrics_rows(str(run.path), _stamp(run.metrics_file))


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _metrics_rows(path: str, stamp: str) -> list[dict]:
    try:
        return [row for row in RunFolder(Path(path)).metrics() if isinstance(row, dict)]
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("metrics.jsonl of %s cannot be read: %s", path, error)
        return []


def evaluations(run: RunFolder) -> tuple[dict[str, dict], list[str]]:
    """Evaluation results by name, and a sentence for each file that cannot be read."""
    found, problems = {}, []
    for name in run.names("evaluation", ".json"):
        try:
            value = run.read_json("evaluation", name)
        except (RunError, OSError, UnicodeDecodeError):
            problems.append(f"evaluation/{name} is damaged: make it again")
            continue
        if isinstance(value, dict):
            found[name.removesuffix(".json")] = value
        else:
            problems.append(f"evaluation/{name} holds no result: make it again")
    return found, problems


def environment_of(run: RunFolder) -> dict:
    return _json_of(run.environment_file)


def _json_of(path: Path) -> dict:
    import json

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def card_of(run: RunFolder) -> str:
    try:
        return run.card_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


# --- routing tables ---


def routing_files(run: RunFolder) -> RoutingFiles:
    paths = [run.part("routing", name) for name in run.names("routing", ".parquet")]
    return _routing_files(tuple(map(str, paths)), _stamp(*paths))


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _routing_files(paths: tuple[str, ...], stamp: str) -> RoutingFiles:
    return routing_query.routing_files([Path(p) for p in paths])


def routing_facets(files: RoutingFiles) -> dict[str, list[str]]:
    return _routing_facets(files.paths, _stamp(*map(Path, files.paths)), files)


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _routing_facets(paths: tuple[str, ...], stamp: str, _files: RoutingFiles) -> dict[str, list[str]]:
    return routing_query.facets(_files)


def routing_page(files: RoutingFiles, wanted: RoutingFilter, page: int) -> RoutingPage:
    key = tuple(vars(wanted).values())
    return _routing_page(files.paths, _stamp(*map(Path, files.paths)), key, page, files, wanted)


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _routing_page(paths, stamp, key, page: int, _files: RoutingFiles, _wanted: RoutingFilter) -> RoutingPage:
    return routing_query.page_of(_files, _wanted, page)


def logged_utterance(files: RoutingFiles, identifier: str):
    """Rows of one utterance (see `routing_query.utterance`)."""
    return routing_query.utterance(files, identifier)


# --- the model ---


def loaded(run: RunFolder) -> Loaded:
    """The run's model, loaded and warmed once for all sessions; anew when its weights change. Raises RunError."""
    if not run.has_model():
        raise RunError(f"run {run.name!r} has no model/weights.json, so it cannot answer")
    return _loaded(str(run.path), _stamp(run.weights_index, run.config_file))


@st.cache_resource(max_entries=MODELS_KEPT, show_spinner=False)
def _loaded(path: str, stamp: str) -> Loaded:
    global _loads
    started = time.perf_counter()
    try:
        model = _on_worker(_load_and_warm, path)
    except RunError:
        raise
    except Exception as error:  # a damaged folder fails in as many ways as there are libraries that read it
        logger.warning("run %s cannot be loaded: %s", path, error)
        raise RunError(
            f"the model of run {Path(path).name!r} cannot be loaded ({' '.join(str(error).split())[:300]})"
        ) from error
    with _count_lock:
        _loads += 1
        number = _loads
    seconds = time.perf_counter() - started
    logger.info("model load %d: %s in %.1f s", number, path, seconds)
    return Loaded(model, seconds, number)


def model_loads() -> int:
    """How many models this server has loaded since it started: shows that sessions share them."""
    return _loads


def _load_and_warm(path: str) -> HarmoniFuse:
    """The first pass of a model and of librosa costs seconds: spent here, before the visitor's file arrives."""
    model = load(path)
    noise = np.random.default_rng(0).normal(0, 0.01, int(WARM_SECONDS * SAMPLE_RATE)).astype(np.float32)
    predict(model, [noise])
    mel_spectrogram(noise)
    return model


def _on_worker(function: Callable, *arguments):
    return _worker.submit(function, *arguments).result()


def answer(run: RunFolder, clip: Clip, prompts: Prompts) -> Answered:
    """Answers of the tasks named in `prompts` on one recording, remembered by content. Raises RunError, ValueError."""
    stamp = _stamp(run.weights_index, run.config_file)
    return _answer(clip.sha256, str(run.path), stamp, tuple(prompts), loaded(run).model, clip.waveform)


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _answer(
    digest: str, path: str, stamp: str, prompts: Prompts, _model: HarmoniFuse, _waveform: np.ndarray
) -> Answered:
    return _on_worker(_infer, _model, _waveform, prompts)


def _infer(model: HarmoniFuse, waveform: np.ndarray, prompts: Prompts) -> Answered:
    options = PredictOptions(tasks=tuple(task for task, _ in prompts), prompts=dict(prompts))
    started = time.perf_counter()
    answers = predict(model, [waveform], options)[0]
    seconds = time.perf_counter() - started
    pieces = len(segment(waveform, max_seconds=model.config.max_seconds))
    return Answered(answers, seconds, len(waveform) / SAMPLE_RATE, pieces, str(model.device).upper())


# --- recordings ---


def decode(data: bytes, name: str) -> Clip:
    """A file from outside. Not cached: it belongs to the session that brought it. Raises AudioError."""
    return load_audio(data, name=name)


def picture(clip: Clip) -> Picture:
    return _picture(clip.sha256, clip.waveform)


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _picture(digest: str, _waveform: np.ndarray) -> Picture:
    low, high = envelope(_waveform, MOST_COLUMNS)
    return Picture(low, high, pooled_columns(mel_spectrogram(_waveform), MOST_COLUMNS))


def samples() -> list[Path]:
    """The bundled clips, by name."""
    return sorted(SAMPLES.glob("*.wav"))
