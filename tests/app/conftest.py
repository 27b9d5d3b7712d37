"""Runs for the dashboard's tests, and a clean set of caches for each."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_config, tiny_run, tone, write_wav

from harmonifuse_core.config import save_yaml
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.predict import predict
from harmonifuse_core.metrics import classification_report, transcription_report, word_errors
from harmonifuse_core.routing import Reference, RoutingWriter, records_of
from harmonifuse_core.runs import RunFolder, load, write_json, write_text
from harmonifuse_core.tasks import EMOTIONS

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def fresh_caches():
    """Caches live as long as the process; each test starts with empty ones."""
    import streamlit as st

    yield
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def built_run(tmp_path_factory) -> RunFolder:
    """A tiny run with everything in it; `full_run` hands out copies."""
    run = tiny_run(tmp_path_factory.mktemp("runs"), "full", model__max_seconds=2.0)
    fill(run)
    return run


@pytest.fixture
def runs_folder(tmp_path, monkeypatch) -> Path:
    """An empty runs folder that the dashboard reads."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("HARMONIFUSE_RUNS", str(folder))
    return folder


@pytest.fixture
def full_run(runs_folder, built_run) -> RunFolder:
    shutil.copytree(built_run.path, runs_folder / "full")
    return RunFolder(runs_folder / "full")


@pytest.fixture
def bare_run(runs_folder) -> RunFolder:
    """A config and nothing else."""
    run = RunFolder(runs_folder / "bare")
    run.path.mkdir()
    save_yaml(tiny_config("whisper", title="A bare run"), run.config_file)
    return run


@pytest.fixture(scope="session")
def hostile() -> str:
    """Text that must never act."""
    return HOSTILE


@pytest.fixture
def wav(tmp_path) -> Path:
    return write_wav(tmp_path / "clip.wav", tone(1.0))


def fill(run: RunFolder) -> None:
    """Training log, evaluation, routing and card, written by the code that writes them in earnest."""
    with run.metrics_file.open("w") as file:
        for step in range(10, 110, 10):
            file.write(json.dumps(metrics_row(step, 3)) + "\n")
    model = load(run)
    waves = [tone(0.6, 100.0 + 20 * i, seed=i) for i in range(6)]
    answers = predict(model, waves)
    labels = [{"emotion": emotion} for emotion in EMOTIONS[:6]]
    utterances = [
        Utterance(f"u-{i}", Path(f"u-{i}.wav"), 0.6, "one two", f"speaker-{i % 3}", "tones", "test", label)
        for i, label in enumerate(labels)
    ]  # fmt: skip
    utterances.append(
        Utterance(f"{HOSTILE}?&#", Path("x.wav"), 0.6, f"{HOSTILE} **bold**", "speaker-9", "tones", "test")
    )
    answers.append(answers[0])
    counts = [word_errors(u.text, a["asr"].text) for u, a in zip(utterances, answers, strict=True)]
    with RoutingWriter(run.part("routing", "test.parquet")) as writer:
        for u, a, c in zip(utterances, answers, counts, strict=True):
            references = {"asr": Reference(u.text, c), "ser": Reference(u.labels.get("emotion"))}
            writer.write(records_of(u, a, references))
    speakers = [u.speaker for u in utterances]
    probabilities = [[a["ser"].probabilities[e] for e in EMOTIONS] for a in answers[:6]]
    scores = classification_report(list(range(6)), probabilities, EMOTIONS, speakers[:6], resamples=50)
    asr = transcription_report(counts, speakers, resamples=50)
    write_json(
        run.part("evaluation", "test.json"), {"asr": asr.as_dict(), "ser": scores.as_dict(), "failed": [], "rtf": 0.1}
    )
    write_text(run.card_file, f"# Tiny run\n\nA card. {HOSTILE}\n")


def metrics_row(step: int, states: int) -> dict:
    """A row as training/loop.py writes it."""
    tasks = {}
    for place, task in enumerate(("asr", "ser")):
        logits = np.linspace(0, (step / 50) * (1 if place else -1), states)
        alpha = (np.exp(logits) / np.exp(logits).sum()).round(5).tolist()
        tasks[task] = {"loss": 3 * math.exp(-step / 50), "items": 4, "encoder_alpha": alpha, "lm_alpha": alpha[::-1]}
    row = {"step": step, "lr": 1e-3, "gradient_norm": 1.0, "seconds": step / 10, "tasks": tasks}
    return row | ({"dev": {"asr.wer": 0.5, "ser.ua": 0.4}} if step % 50 == 0 else {})
