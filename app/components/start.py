"""Start batch work: choose what it is about, copy the exact command, or press a button that starts it by itself."""

from collections.abc import Sequence

import streamlit as st

from app import jobs
from app.components import plain
from app.services import result_files
from harmonifuse_core.runs import RunFolder

FEW = 16  # utterances of a first look
UNNAMED = "MANIFEST.jsonl"  # stands in the command for a manifest that nobody has named yet
BESIDE = (
    "Copy the command, or start it here: it then runs as a process of its own, goes on when this page is closed, and "
    "is listed on the page *Jobs*."
)


def analyse(run: RunFolder, names: str, extra: Sequence[str] = (), key: str = "") -> None:
    """`python -m harmonifuse_core.analyse --only NAMES` for this run."""
    key = key or names.replace(",", "-")
    arguments = ("--run", result_files.shown_path(run.path), *_corpus(key, run), "--only", names, *extra)
    command(key, jobs.Command("analyse", arguments))


def probes(run: RunFolder, key: str = "probes") -> None:
    """`python -m probes.run` for this run."""
    command(key, jobs.Command("probes", ("--run", result_files.shown_path(run.path), *_corpus(key, run))))


def joined(run: RunFolder, name: str) -> None:
    """`python -m probes.joined` for one probe result of this run."""
    arguments = ("--run", result_files.shown_path(run.path), "--probes", name)
    command("joined", jobs.Command("joined", arguments))


def _corpus(key: str, run: RunFolder) -> tuple[str, ...]:
    """`--manifest M [--split S] [--limit N]` from three fields; M is `UNNAMED` while no manifest is named."""
    known = result_files.manifests(run)
    left, middle, right = st.columns([0.5, 0.25, 0.25], vertical_alignment="bottom")
    with left:
        manifest = st.selectbox(
            "Manifest (JSONL)", known, key=f"job-manifest-{key}", accept_new_options=True, index=0 if known else None,
            placeholder="type the path of a manifest",
        )  # fmt: skip
    with middle:
        split = st.text_input("Split (empty: all)", "test", key=f"job-split-{key}", max_chars=80).strip()
    with right:
        limit = st.number_input("Utterances (0: all)", 0, 1_000_000, FEW, key=f"job-limit-{key}")
    words = ["--manifest", (manifest or "").strip() or UNNAMED]
    words += ["--split", split] if split else []
    return (*words, "--limit", str(int(limit))) if limit else tuple(words)


def command(key: str, wanted: jobs.Command) -> None:
    """The exact command, and the button."""
    st.code(wanted.shown, language=None, wrap_lines=True)
    if UNNAMED in wanted.arguments:
        st.caption(f"Name a manifest above, or put yours in place of {UNNAMED}: README tells what it holds.")
        return
    if not result_files.may_start():
        st.caption("This server leaves starting to you: copy the command.")
        return
    st.caption(BESIDE)
    if st.button("Start it here", key=f"job-start-{key}", icon=":material/play_circle:", type="primary"):
        try:
            st.session_state[f"job-of-{key}"] = jobs.start(result_files.jobs_place(), wanted).name
        except jobs.JobError as error:
            plain.problem(f"job-{key}", "It was not started.", str(error))
    if name := st.session_state.get(f"job-of-{key}"):
        watch(key, name)


def watch(key: str, name: str) -> None:
    """One job, looked at every two seconds while it runs; the page is drawn anew when it ends."""
    try:
        running = jobs.read(result_files.jobs_place(), name).state == jobs.RUNNING
    except jobs.JobError:
        return
    st.fragment(_watched, run_every=2 if running else None)(key, name, running)


def _watched(key: str, name: str, was_running: bool) -> None:
    job = jobs.read(result_files.jobs_place(), name)
    show(key, job)
    if was_running and job.state != jobs.RUNNING:
        st.rerun()


def show(key: str, job: jobs.Job) -> None:
    """State in words, progress with what is left, the last lines of its log."""
    words = {
        jobs.RUNNING: "Stopping" if job.stopping else "Running", jobs.DONE: "Done", jobs.STOPPED: "Stopped",
        jobs.FAILED: f"Failed (exit code {job.code})", jobs.LOST: "Gone: it ended without an exit code",
    }  # fmt: skip
    st.text(f"{words[job.state]} · started {job.started}")
    if job.state == jobs.RUNNING and job.progress:
        done = job.progress
        left = f", {done.rest} (past<left)" if done.rest else ""
        st.progress(done.done / done.total)
        st.text(f"{done.stage + ': ' if done.stage else ''}{done.done} of {done.total}{left}")
    elif job.state == jobs.RUNNING:
        st.caption("No count yet: the command loads, or does not say how much is left.")
    if job.tail:
        with st.container(key=f"plain-log-{key}"):
            st.text(job.tail[-1500:])
    if job.state == jobs.RUNNING and st.button("Stop at once" if job.stopping else "Stop", key=f"job-stop-{key}"):
        jobs.stop(result_files.jobs_place(), job.name)
        st.rerun(scope="fragment")
