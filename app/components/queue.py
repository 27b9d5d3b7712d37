"""Several recordings at once: a list that fills, a bar that counts, a button that stops it."""

import pandas as pd
import streamlit as st

from app import services, state
from app.components import plain
from app.components.columns import number_columns
from app.components.export import downloads
from app.components.recording import TYPES
from app.listening_queue import MOST_FILES, ListeningQueue, QueueItem
from harmonifuse_core.data.audio import AudioError
from harmonifuse_core.runs import RunError, RunFolder

QUEUE, RUN, PROBLEM, OPENED = (f"listening_queue{part}" for part in ("", "_run", "_problem", "_opened"))
FILES = "several"
EVERY = 1.0  # seconds between two looks


def chooser(run: RunFolder) -> None:
    """The uploader for several files, and the button that starts them."""
    st.file_uploader(f"Recordings (up to {MOST_FILES})", TYPES, accept_multiple_files=True, key=FILES)
    st.button(
        "Listen to all of them", key="queue-start", icon=":material/playlist_play:", on_click=_start, args=(run,),
        disabled=not st.session_state.get(FILES),
    )  # fmt: skip
    if message := st.session_state.get(PROBLEM):
        plain.problem("queue", "The queue could not start.", message)


def _start(run: RunFolder) -> None:
    _drop()
    files = [(file.name, file.getvalue()) for file in st.session_state.get(FILES) or ()]
    try:
        st.session_state[QUEUE] = services.listening_queue(run, files)
        st.session_state[RUN] = run.name
    except (RunError, ValueError) as error:
        st.session_state[PROBLEM] = str(error)


def _drop() -> None:
    """Stop the session's queue and forget it."""
    st.session_state[PROBLEM] = ""
    if (queue := st.session_state.pop(QUEUE, None)) is not None:
        queue.cancel()


def show(run: RunFolder) -> None:
    """The session's queue, where it has one; looked at every second while it runs."""
    queue: ListeningQueue | None = st.session_state.get(QUEUE)
    if queue is not None:
        st.fragment(_panel, run_every=EVERY if queue.running else None)(run, queue, queue.running)


def _panel(run: RunFolder, queue: ListeningQueue, was_running: bool) -> None:
    items, done = queue.items, queue.done
    if st.session_state.pop(OPENED, False) or (was_running and not queue.running):
        st.rerun()
    st.header("Several recordings", anchor=False)
    if (other := st.session_state.get(RUN, run.name)) != run.name:
        plain.notes("queue-run", [f"answered by run {other}, which was chosen when the list began"])
    left = queue.total - done
    st.progress(done / queue.total, text=f"{done} of {queue.total} done" + (f", {left} to go" if left else ""))
    with st.container(horizontal=True, gap="small"):
        st.button("Cancel", key="queue-cancel", icon=":material/stop_circle:", on_click=queue.cancel, disabled=not left)
        st.button("Close the list", key="queue-close", icon=":material/close:", on_click=_close, disabled=left > 0)
    table = queue_table(items)
    st.dataframe(
        table, hide_index=True, height=min(420, 40 + 35 * len(table)), on_select=_open, selection_mode="single-row",
        key="queue-table", column_config=number_columns(("seconds",), 1),
    )  # fmt: skip
    st.caption(
        "Choose a row to open that recording below. One recording is heard at a time, in turn with other visitors."
    )
    downloads("queue", f"{run.name}-recordings", table)


def _close() -> None:
    _drop()
    st.session_state[OPENED] = True  # the whole page is to be drawn again


def _open() -> None:
    queue, event = st.session_state.get(QUEUE), st.session_state.get("queue-table")
    rows = event.selection.rows if event is not None else []
    if queue is None or not rows or rows[0] >= queue.total:
        return
    name, data = queue.files[rows[0]]
    try:
        state.choose_recording(services.decode(data, name))
    except AudioError as error:
        state.choose_recording(None, problem=str(error))
    st.session_state[OPENED] = True


def queue_table(items: tuple[QueueItem, ...]) -> pd.DataFrame:
    """A row a file: state, length, every task's answer, and what went wrong."""
    rows = []
    for item in items:
        row = {"file": item.name, "state": item.state}
        if item.result is not None:
            row["seconds"] = item.result.audio_seconds
            for task, answer in item.result.answers.items():
                row[task] = answer.text if answer.text is not None else answer.label
                if answer.probabilities:
                    row[f"{task} probability"] = round(answer.probabilities[answer.label], 4)
        rows.append(row | ({"message": item.message} if item.message else {}))
    return pd.DataFrame(rows)
