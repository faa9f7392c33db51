"""Background jobs on a page: the session's jobs, a bar with the time left and a way to cancel, and watching them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import streamlit as st
import torch

from dashboard.jobs import WORKERS, Job, JobPool, SessionJobs
from dashboard.page import guarded, sentence

POLL_SECONDS = 0.4
PATIENCE_SECONDS = 0.2  # how long a page waits before it shows a bar: short jobs then never flicker


@st.cache_resource(show_spinner=False)
def _pool() -> JobPool:
    """The threads, once per process, which is set up for many threads with small models.

    torch gets its share of the cores: two jobs that both want all of them wait for each other at every operation (on a
    busy machine with two cores a hundred small images took 4.5 s in place of 0.15). A torch operation hands the
    interpreter to whoever waits for it, and would get it back only after Python's 5 ms.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))
    sys.setswitchinterval(0.001)
    return JobPool()


def session_jobs() -> SessionJobs:
    """The jobs of this browser session, on the threads shared by all."""
    if "_jobs" not in st.session_state:
        st.session_state["_jobs"] = SessionJobs(_pool())
    return st.session_state["_jobs"]


def watch(jobs: Sequence[Job], draw: Callable[[], None]) -> None:
    """Draw a part of the page again and again while jobs go on, without running the rest of the page."""
    for job in jobs:
        job.wait(PATIENCE_SECONDS / len(jobs))
    going_on = any(not job.done for job in jobs)

    def again() -> None:
        for job in jobs:
            job.look()
        draw()
        if going_on and all(job.done for job in jobs):
            st.rerun()

    st.fragment(guarded(again), run_every=POLL_SECONDS if going_on else None)()


def show_state(job: Job, key: str, again: Callable[[], None]) -> bool:
    """The bar of a job that goes on, or why it ended and a way to start it again; whether there is a result."""
    if job.result is not None:  # also where it was cancelled too late
        return True
    if job.error is not None:
        st.error(sentence(job.error), icon=":material/error:")
    elif job.cancelled:
        st.caption("Stopped, because no page was looking at it." if job.abandoned else "Cancelled.")
    if job.error is not None or job.cancelled:
        if st.button("Start again", key=f"_again_{key}", icon=":material/refresh:"):
            again()
            st.rerun()  # of the whole page: it is outside this part that a job is started
    elif not job.done:
        text, stop = st.columns([4, 1], vertical_alignment="center")
        text.progress(job.progress, text=_progress_text(job))
        stop.button("Cancel", key=f"_cancel_{key}", on_click=job.cancel, icon=":material/close:")
    return False


def _progress_text(job: Job) -> str:
    if job.started is None:
        return "waiting for a free thread"
    left = job.seconds_left
    return f"{job.progress:.0%}" + (f", about {max(1, round(left))} s left" if left is not None else "")
