"""Batch work beside the dashboard: processes of a fixed list of commands, seen through files alone. No streamlit.

    job = start(folder, Command("analyse", ("--run", "runs/default", "--manifest", "M.jsonl")))
    read(folder, job.name).state          # running, done, failed, stopped or lost

Every job has a folder: `job.json` (what was started), `log.txt` (what it says), `end.json` (its exit code). A browser
reload, another visitor and a restart of the server find it by these files. `app/job_runner.py` runs the command.
"""

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = {
    "analyse": "harmonifuse_core.analyse", "evaluate": "harmonifuse_core.evaluate", "probes": "probes.run",
    "joined": "probes.joined", "study": "harmonifuse_core.study", "report": "harmonifuse_core.report",
}  # fmt: skip
RUNNING, DONE, FAILED, STOPPED, LOST = "running", "done", "failed", "stopped", "lost"
JOB, LOG, END, STOP = "job.json", "log.txt", "end.json", "stop.json"
NAME = re.compile(r"\d{8}-\d{6}-[a-z]+-[0-9a-f]{6}")
BAR = re.compile(r"(?:^|[\r\n])([^\r\n|]*?):?\s*\d+%\|[^|]*\|\s*(\d+)/(\d+) \[([^\]\r\n]*)")
RUNNER = (sys.executable, "-m", "app.job_runner")
TAIL_BYTES, TAIL_LINES = 32_768, 40
MOST_SHOWN = 50
_starting = threading.Lock()


class JobError(ValueError):
    """A job cannot be started, read or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class Command:
    """`python -m MODULE ARGUMENTS`, the module by its `kind` of `MODULES`. Raises JobError for any other kind."""

    kind: str
    arguments: tuple[str, ...]

    def __post_init__(self):
        if self.kind not in MODULES:
            raise JobError(f"command {self.kind!r} is not one that the dashboard starts: {', '.join(MODULES)}")
        if bad := [a for a in self.arguments if not isinstance(a, str) or "\0" in a or "\n" in a]:
            raise JobError(f"argument {bad[0]!r} is not one line of text")

    @property
    def words(self) -> list[str]:
        return ["-m", MODULES[self.kind], *self.arguments]

    @property
    def shown(self) -> str:
        """As one types it in the repository's folder."""
        return shlex.join(["python", *self.words])


@dataclass(frozen=True)
class Progress:
    """done of total, in the command's own unit; stage and rest as its bar says them, e.g. `survey`, `00:10<00:20`."""

    done: int
    total: int
    stage: str = ""
    rest: str = ""


@dataclass(frozen=True)
class Job:
    """state: see above; `lost`: the process is gone and left no exit code. code: None while it runs or where lost."""

    name: str
    command: Command
    started: str
    state: str
    code: int | None
    progress: Progress | None
    tail: str
    stopping: bool


def start(folder: Path, command: Command, runner: Sequence[str] = RUNNER) -> Job:
    """Start `command` by itself: a session of its own, no shell. One job at a time; raises JobError where one runs."""
    with _starting:
        return _start(folder, command, runner)


def _start(folder: Path, command: Command, runner: Sequence[str]) -> Job:
    if running := [job for job in jobs(folder) if job.state == RUNNING]:
        raise JobError(f"{running[0].command.kind} of {running[0].started} still runs: wait for it, or stop it")
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{command.kind}-{secrets.token_hex(3)}"
    place = folder / name
    try:
        place.mkdir(parents=True)
        row = {"kind": command.kind, "arguments": list(command.arguments), "started": now.isoformat(timespec="seconds")}
        write(place / JOB, row)
        with (place / LOG).open("wb") as log:
            process = subprocess.Popen(
                [*runner, str(place)], cwd=REPOSITORY, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, close_fds=True,
            )  # fmt: skip
        write(place / JOB, row | {"pid": process.pid, "born": born(process.pid)})
    except OSError as error:
        raise JobError(f"{folder} cannot hold a job ({error.strerror}): make it writable") from error
    return read(folder, name)


def jobs(folder: Path) -> list[Job]:
    """The newest first, at most 50; a folder that is not a job is passed over."""
    names = sorted((p.name for p in folder.glob("*") if NAME.fullmatch(p.name)), reverse=True)[:MOST_SHOWN]
    found = []
    for name in names:
        try:
            found.append(read(folder, name))
        except JobError:
            continue
    return found


def read(folder: Path, name: str) -> Job:
    """One job from its files. Raises JobError where there is none, or where job.json is damaged."""
    if not NAME.fullmatch(name):
        raise JobError(f"{name!r} is not the name of a job")
    place = folder / name
    row = _json(place / JOB)
    try:
        command = Command(str(row["kind"]), tuple(row["arguments"]))
        started = datetime.fromisoformat(row["started"]).isoformat(timespec="seconds")
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"job {name} is damaged ({error}): delete its folder") from None
    end, stopping = _json(place / END), (place / STOP).is_file()
    code = end.get("code") if isinstance(end.get("code"), int) else None
    if code is not None:
        state = DONE if code == 0 else STOPPED if stopping else FAILED
    else:
        state = RUNNING if _running(row) else STOPPED if stopping else LOST
    text = tail(place / LOG)
    return Job(name, command, started, state, code, progress_of(text), spoken(text), stopping)


def stop(folder: Path, name: str) -> None:
    """Ask it to stop, as Ctrl-C does; the second time end it at once. What it has written stays."""
    job, row = read(folder, name), _json(folder / name / JOB)
    if job.state != RUNNING:
        return
    write(folder / name / STOP, {"asked": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        os.killpg(row["pid"], signal.SIGKILL if job.stopping else signal.SIGINT)
    except ProcessLookupError:
        return


def _running(row: dict) -> bool:
    """A job whose process number is not written yet was started a moment ago, or never."""
    if "pid" in row:
        return alive(row["pid"], row.get("born"))
    return datetime.now(UTC) - datetime.fromisoformat(row["started"]) < timedelta(seconds=30)


def alive(pid, birth) -> bool:
    """The process is there, and is the one that was started: a number is used anew after a while."""
    if not isinstance(pid, int) or pid <= 1:
        return False
    now = born(pid)
    if now is not None:
        return birth is None or now == birth
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return not Path("/proc/self/stat").exists()  # a system without /proc: the number must do


def born(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; None where it is gone, dead, or not to be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def tail(path: Path) -> str:
    """The last 32 KB of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def progress_of(text: str) -> Progress | None:
    """What the last progress bar says; None where the command shows none."""
    bars = BAR.findall(text)
    if not bars or int(bars[-1][2]) < 1:
        return None
    stage, done, total, rest = bars[-1]
    return Progress(min(int(done), int(total)), int(total), stage.strip(), rest.split(",")[0].strip())


def spoken(text: str) -> str:
    """The last lines of a log without its progress bars."""
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in lines if line.strip() and not BAR.search(line)][-TAIL_LINES:])


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write(path: Path, value: dict) -> None:
    """Old or new, never half. Not `runs.write_json`: that module loads torch, and a job's runner must stay small."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


def remove(folder: Path, names: Sequence[str]) -> None:
    """Forget jobs that ended: their logs, not their results."""
    for name in names:
        if read(folder, name).state != RUNNING:
            for file in (folder / name).iterdir():
                file.unlink()
            (folder / name).rmdir()
