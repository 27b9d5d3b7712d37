"""Jobs: what runs beside the dashboard, how far is it, and how did it end?"""

import streamlit as st

from app import jobs
from app.components import plain, start, views
from app.services import result_files

QUESTION = "What runs beside the dashboard, how far is it, and how did it end?"
EXAMPLE = "python -m harmonifuse_core.analyse --run runs/default --manifest M.jsonl --split test"
EVERY = 2  # seconds


def page() -> None:
    views.head("Jobs", QUESTION)
    st.caption(
        "Jobs are processes of their own: they go on when this page is closed or loaded anew. One runs at a time, so "
        "that visitors' answers do not wait. Results go into the run's folder, where the other pages find them."
    )
    found = result_files.all_jobs()
    if not found:
        plain.empty(
            "Nothing was started from here yet",
            "Pages that lack a result offer to start it. The same commands run in any terminal, for instance:",
            EXAMPLE,
        )
        return
    running = [job for job in found if job.state == jobs.RUNNING]
    st.subheader("Running" if running else "Nothing runs now", anchor=False)
    for job in running:
        with st.container(border=True):
            st.code(job.command.shown, language=None, wrap_lines=True)
            start.watch(job.name, job.name)
    ended = [job for job in found if job.state != jobs.RUNNING]
    if ended:
        st.subheader("Ended", anchor=False)
        for job in ended:
            with st.expander(f"{job.command.kind}, {job.state}, {job.started.replace(':', chr(92) + ':')}"):
                st.code(job.command.shown, language=None, wrap_lines=True)
                start.show(job.name, job)
        if st.button("Clear this list", help="Takes the logs away, not the results.", key="jobs-clear"):
            jobs.remove(result_files.jobs_place(), [job.name for job in ended])
            st.rerun()


page()
