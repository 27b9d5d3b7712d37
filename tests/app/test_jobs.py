"""Batch work: real processes, found again by their files, counted by their bars, stopped as by Ctrl-C."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from app import jobs
from app.jobs import Command, JobError, Progress

RUNNER = (
    "import sys; from pathlib import Path; from app import jobs, job_runner; jobs.MODULES['nap'] = 'nap'; "
    "sys.exit(job_runner.main(Path(sys.argv[1])))"
)
NAP = """
import sys, time
print("begins", flush=True)
for i in range(3):
    print(f"\\rnap:  33%|###   | {i + 1}/3 [00:0{i}<00:01, 1.0nap/s]", end="", file=sys.stderr, flush=True)
time.sleep(float(sys.argv[1]))
print("\\nends", file=sys.stderr)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def nap(tmp_path, monkeypatch):
    """`nap(seconds, code)` starts a job that sleeps and exits; what is left running is killed."""
    (tmp_path / "nap.py").write_text(NAP)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{jobs.REPOSITORY}")
    monkeypatch.setitem(jobs.MODULES, "nap", "nap")
    folder, started = tmp_path / "jobs", []

    def start(seconds: float, code: int = 0):
        started.append(
            jobs.start(folder, Command("nap", (str(seconds), str(code))), runner=(sys.executable, "-c", RUNNER))
        )
        return folder, started[-1].name

    yield start
    for job in started:
        file = folder / job.name / jobs.JOB
        row = json.loads(file.read_text()) if file.is_file() else {"pid": None, "born": None}
        if jobs.alive(row["pid"], row["born"]):
            os.killpg(row["pid"], signal.SIGKILL)


def wait_for(folder: Path, name: str, reached) -> jobs.Job:
    for _ in range(600):
        job = jobs.read(folder, name)
        if reached(job):
            return job
        time.sleep(0.1)
    pytest.fail(f"the job stays {job}")


def test_a_job_runs_by_itself_and_leaves_code_log_and_count(nap):
    folder, name = nap(0)
    job = wait_for(folder, name, lambda j: j.state != jobs.RUNNING)
    assert (job.state, job.code) == (jobs.DONE, 0)
    assert job.progress == Progress(3, 3, "nap", "00:02<00:01")
    assert "begins" in job.tail and "ends" in job.tail and "###" not in job.tail
    assert [j.name for j in jobs.jobs(folder)] == [name]
    jobs.remove(folder, [name])
    assert jobs.jobs(folder) == []


def test_a_failure_keeps_its_code(nap):
    folder, name = nap(0, 3)
    job = wait_for(folder, name, lambda j: j.state != jobs.RUNNING)
    assert (job.state, job.code) == (jobs.FAILED, 3)


def test_a_running_job_is_found_by_its_files_refuses_a_second_and_stops(nap):
    folder, name = nap(300)
    wait_for(folder, name, lambda j: j.progress is not None)
    assert jobs.jobs(folder)[0].state == jobs.RUNNING  # as another session, or a restarted server, reads it
    with pytest.raises(JobError, match="still runs"):
        nap(0)
    jobs.stop(folder, name)
    job = wait_for(folder, name, lambda j: j.state != jobs.RUNNING)
    assert job.state == jobs.STOPPED and job.code not in (None, 0)


def written(folder: Path, name: str, **row) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    whole = {"kind": "analyse", "arguments": ["--run", "runs/x"], "started": "2026-01-01T00:00:00+00:00"} | row
    (place / jobs.JOB).write_text(json.dumps(whole))
    return place


NAMED = "20260101-000000-analyse-0123ab"


def test_a_job_whose_process_is_gone_without_a_code_is_lost(tmp_path):
    written(tmp_path, NAMED, pid=os.getpid(), born="another process had this number")
    assert jobs.read(tmp_path, NAMED).state == jobs.LOST
    assert not jobs.alive(None, None) and not jobs.alive(1, None)
    assert jobs.alive(os.getpid(), jobs.born(os.getpid()))


@pytest.mark.parametrize("row", [{"kind": "rm"}, {"arguments": 3}, {"arguments": ["a\nb"]}, {"started": "yesterday"}])
def test_what_is_no_job_of_ours_is_neither_listed_nor_run(tmp_path, row):
    written(tmp_path, NAMED, **row)
    assert jobs.jobs(tmp_path) == []
    with pytest.raises(JobError):
        jobs.read(tmp_path, NAMED)


@pytest.mark.parametrize("name", ["..", "../x", "x", f"{NAMED}/..", ""])
def test_names_never_leave_the_folder(tmp_path, name):
    with pytest.raises(JobError):
        jobs.read(tmp_path, name)


def test_only_commands_of_the_list_and_their_text_is_quoted():
    with pytest.raises(JobError, match="not one that the dashboard starts"):
        Command("os", ())
    command = Command("analyse", ("--prompt", "a; rm -rf $HOME"))
    assert command.words == ["-m", "harmonifuse_core.analyse", "--prompt", "a; rm -rf $HOME"]
    assert command.shown == "python -m harmonifuse_core.analyse --prompt 'a; rm -rf $HOME'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None), ("no bar here 3/4", None),
        ("survey:  50%|█████     | 8/16 [00:19<00:19,  2.39s/utterance]", Progress(8, 16, "survey", "00:19<00:19")),
        ("  0%|   | 0/16 [00:00<?, ?u/s]\ra:  5%|#| 1/16 [00:01<00:15]", Progress(1, 16, "a", "00:01<00:15")),
        ("x: 0%|   | 0/0 [00:00<?]", None),
    ],
)  # fmt: skip
def test_progress_is_what_the_last_bar_says(text, expected):
    assert jobs.progress_of(text) == expected
