"""Run folders as the dashboard reads them: what is damaged is named, what is large is remembered."""

import json
import logging
import os
from pathlib import Path

import streamlit as st
import yaml

from harmonifuse_core.analysis.result import KIND, AnalysisResult, read_result
from harmonifuse_core.config import Config, to_dict
from harmonifuse_core.runs import RunError, RunFolder, find_runs, open_run

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS_VARIABLE = "HARMONIFUSE_RUNS"
TABLES_KEPT = 32

logger = logging.getLogger("harmonifuse.app")


def runs_root() -> Path:
    """`runs/` of the repository, or the folder that HARMONIFUSE_RUNS names."""
    return Path(os.environ.get(RUNS_VARIABLE) or REPOSITORY / "runs")


def runs() -> list[RunFolder]:
    return find_runs(runs_root())


def run_named(name: str) -> RunFolder:
    return open_run(name, runs_root())


def config_of(run: RunFolder) -> Config:
    """Raises RunError for whatever is wrong with config.yaml. Read anew when the file changes."""
    return _config_of(str(run.path), stamp(run.config_file))


@st.cache_resource(max_entries=TABLES_KEPT, show_spinner=False)
def _config_of(path: str, stamp_: str) -> Config:
    run = RunFolder(Path(path))
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


def stamp(*paths: Path) -> str:
    """Changes whenever one of the files does: the part of a cache's key that makes old entries unreachable."""
    parts = []
    for path in paths:
        try:
            status = path.stat()
            parts.append(f"{path.name}:{status.st_mtime_ns}:{status.st_size}")
        except OSError:
            parts.append(f"{path.name}:absent")
    return "|".join(parts)


def metrics_rows(run: RunFolder) -> list[dict]:
    return _metrics_rows(str(run.path), stamp(run.metrics_file))


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


def signatures_of(run: RunFolder) -> AnalysisResult | None:
    """`analysis/signatures.json`, None where it is missing. Raises RunError where it is damaged."""
    return read_result(run, "signatures") if "signatures.json" in run.names(KIND, ".json") else None


def seeds_of(run: RunFolder) -> list[RunFolder]:
    """This run and all others whose config differs from its own by nothing but seed and words."""
    return [RunFolder(Path(path)) for path in _seeds_of(str(run.path), _config_stamps())]


def _config_stamps() -> str:
    return "|".join(f"{run.name}:{stamp(run.config_file)}" for run in runs())


@st.cache_data(max_entries=TABLES_KEPT, show_spinner=False)
def _seeds_of(path: str, stamps: str) -> list[str]:
    own = _without_seed(RunFolder(Path(path)))
    return [str(run.path) for run in runs() if own is not None and _without_seed(run) == own]


def _without_seed(run: RunFolder) -> dict | None:
    try:
        values = to_dict(config_of(run))
    except RunError:
        return None
    values["training"] = {name: value for name, value in values["training"].items() if name != "seed"}
    return {name: value for name, value in values.items() if name not in ("title", "description")}
