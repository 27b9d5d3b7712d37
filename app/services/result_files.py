"""What analyses, probes and studies left in files, kept in memory until the files change; jobs and manifests to use.

Reading raises RunError where a file is damaged, and gives None where it is not there.
"""

import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import streamlit as st
import yaml

from app import jobs
from app.findings import Finding, finding_of, frame_of
from app.services.folders import REPOSITORY, runs_root, stamp
from harmonifuse_core.analysis import two_runs
from harmonifuse_core.routing import RoutingError, read_routing
from harmonifuse_core.runs import RunError, RunFolder, StudyFolder, find_studies, jobs_folder

KEPT = 64
JOBS_VARIABLE, OFF = "HARMONIFUSE_JOBS", "off"
DATA = REPOSITORY.parent / "shared" / "data"
ANALYSIS, PROBES, JOINED = "analysis", "probes", "joined"


def analysis(run: RunFolder, name: str) -> Finding | None:
    """`analysis/NAME.json` of the run."""
    return _finding(run.part(ANALYSIS, f"{name}.json"))


def probe_names(run: RunFolder) -> list[str]:
    """Names of probe results, the fullest first; the joined figure's file is left out."""
    names = [name for name in run.names(PROBES, ".json") if name != f"{JOINED}.json"]
    names.sort(key=lambda name: -run.part(PROBES, name).stat().st_size)
    return [name.removesuffix(".json") for name in names]


def probes(run: RunFolder, name: str) -> Finding | None:
    return _finding(run.part(PROBES, f"{name}.json"))


def joined(run: RunFolder) -> Finding | None:
    """Probe, alpha, share and damage on one axis; `record["parts"]` says what of them is there."""
    return _finding(run.part(PROBES, f"{JOINED}.json"))


def studies() -> list[StudyFolder]:
    return find_studies(runs_root())


def study(folder: StudyFolder) -> Finding | None:
    return _finding(folder.table_file)


def study_rows(folder: StudyFolder, kind: str) -> pd.DataFrame:
    """`cells`, `utterances` or `alphas` of a finished study; empty before. Raises RunError where damaged."""
    return _parquet(folder.rows(kind))


def probe_answers(run: RunFolder, name: str, target: str) -> pd.DataFrame:
    """stage, task, layer, label, predicted of every utterance for one target; empty where there is nothing."""
    path = run.part(PROBES, f"{name}.parquet")
    wanted = ["stage", "task", "layer", f"target_{target}", f"predicted_{target}"]
    found = _parquet(path, tuple(wanted))
    return found.rename(columns={wanted[3]: "label", wanted[4]: "predicted"}).dropna(subset=["label", "predicted"])


def _finding(path: Path) -> Finding | None:
    return _read_finding(str(path), stamp(path)) if path.is_file() else None


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _read_finding(path: str, when: str) -> Finding:
    name = "/".join(Path(path).parts[-2:])
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{name} is damaged ({error}); make it again") from error
    return finding_of(stored, name)


def _parquet(path: Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=list(columns))
    return _read_parquet(str(path), stamp(path), columns)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _read_parquet(path: str, when: str, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=list(columns) or None)
    except (OSError, pa.ArrowException, ValueError) as error:
        name = "/".join(Path(path).parts[-2:])
        raise RunError(f"{name} cannot be read ({' '.join(str(error).split())[:200]}); make it again") from error


# --- two runs ---


def shared_evaluations(one: RunFolder, two: RunFolder) -> list[str]:
    """Names under which both runs have logged routing."""
    mine, other = (run.names("routing", ".parquet") for run in (one, two))
    return [name.removesuffix(".parquet") for name in mine if name in other]


def compared(one: RunFolder, two: RunFolder, evaluation: str) -> Finding:
    """Both runs on the utterances that both answered. Raises RunError."""
    paths = [run.part("routing", f"{evaluation}.parquet") for run in (one, two)]
    return _compared(tuple(map(str, paths)), stamp(*paths), evaluation)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _compared(paths: tuple[str, str], when: str, evaluation: str) -> Finding:
    try:
        rows = [read_routing(path, two_runs.COLUMNS) for path in paths]
        result = two_runs.compare_runs(*rows, evaluation)
    except (RoutingError, ValueError) as error:
        raise RunError(str(error)) from error
    return Finding(result, {table.name: frame_of(table.rows) for table in result.tables}, {"evaluation": evaluation})


def moved_weights(one: RunFolder, two: RunFolder) -> pd.DataFrame:
    """How far each group of parameters lies apart in two runs, see `two_runs.moved_weights`. Raises RunError."""
    return _moved(str(one.path), str(two.path), stamp(one.weights_index, two.weights_index))


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _moved(one: str, two: str, when: str) -> pd.DataFrame:
    return two_runs.moved_weights(RunFolder(Path(one)), RunFolder(Path(two)))


# --- batch work ---


def jobs_place() -> Path:
    return jobs_folder(runs_root())


def may_start() -> bool:
    """`HARMONIFUSE_JOBS=off` leaves visitors the commands, and takes the buttons away."""
    return os.environ.get(JOBS_VARIABLE, "").strip().lower() != OFF


def all_jobs() -> list[jobs.Job]:
    return jobs.jobs(jobs_place())


def shown_path(path: Path) -> str:
    """As a command typed in the repository's folder names it."""
    path = Path(path).resolve()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def manifests(run: RunFolder | None = None) -> list[str]:
    """Manifests on this machine: those of the run's config, and those of ../shared/data."""
    found = [f"../shared/data/{path.name}" for path in sorted(DATA.glob("*.jsonl"))] if DATA.is_dir() else []
    try:
        data = run.config().data if run is not None else None
        own = [corpus.manifest for corpus in (*data.train, *data.dev)] if data else []
    except (ValueError, TypeError, KeyError, OSError, yaml.YAMLError):
        own = []
    return list(dict.fromkeys([m for m in own if (REPOSITORY / m).is_file()] + found))
