"""Models and their answers: one copy for every session, one worker thread that runs it."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from app.services.folders import stamp
from harmonifuse_core.data.audio import SAMPLE_RATE, Clip, segment
from harmonifuse_core.data.display import mel_spectrogram
from harmonifuse_core.inference.predict import Answers, PredictOptions, predict
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.runs import RunError, RunFolder, load

MODELS_KEPT, RESULTS_KEPT = 2, 64
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


def loaded(run: RunFolder) -> Loaded:
    """The run's model, loaded and warmed once for all sessions; anew when its weights change. Raises RunError."""
    if not run.has_model():
        raise RunError(f"run {run.name!r} has no model/weights.json, so it cannot answer")
    return _loaded(str(run.path), stamp(run.weights_index, run.config_file))


@st.cache_resource(max_entries=MODELS_KEPT, show_spinner=False)
def _loaded(path: str, stamp_: str) -> Loaded:
    global _loads
    started = time.perf_counter()
    try:
        model = on_worker(_load_and_warm, path)
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
    """The first pass of a model costs seconds: spent here, before the visitor's file arrives."""
    model = load(path)
    noise = np.random.default_rng(0).normal(0, 0.01, int(WARM_SECONDS * SAMPLE_RATE)).astype(np.float32)
    predict(model, [noise])
    mel_spectrogram(noise)
    return model


def on_worker(function: Callable, *arguments):
    return _worker.submit(function, *arguments).result()


def answer(run: RunFolder, clip: Clip, prompts: Prompts) -> Answered:
    """Answers of the tasks named in `prompts` on one recording, remembered by content. Raises RunError, ValueError."""
    key = stamp(run.weights_index, run.config_file)
    return _answer(clip.sha256, str(run.path), key, tuple(prompts), loaded(run).model, clip.waveform)


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _answer(
    digest: str, path: str, stamp_: str, prompts: Prompts, _model: HarmoniFuse, _waveform: np.ndarray
) -> Answered:
    return on_worker(_infer, _model, _waveform, prompts)


def _infer(model: HarmoniFuse, waveform: np.ndarray, prompts: Prompts) -> Answered:
    options = PredictOptions(tasks=tuple(task for task, _ in prompts), prompts=dict(prompts))
    started = time.perf_counter()
    answers = predict(model, [waveform], options)[0]
    seconds = time.perf_counter() - started
    pieces = len(segment(waveform, max_seconds=model.config.max_seconds))
    return Answered(answers, seconds, len(waveform) / SAMPLE_RATE, pieces, str(model.device).upper())
