"""A name that was deleted and registered again counts from 1 anew: what a session made of the former models goes."""

from __future__ import annotations

import streamlit as st

from dashboard import loading
from dashboard.job_panel import session_jobs

COMPUTED = ("_scores", "_surprise")  # what pages keep in the session by a model's address, besides jobs
RUNS = "_runs_behind"  # the run behind each address, as this session last saw it


def forget_replaced() -> None:
    """Drop the jobs, scores and maps of this session where an address stands for another run's model than before."""
    before, now = st.session_state.get(RUNS, {}), {one.uri: one.run_id for one in loading.versions()}
    if any(before.get(uri, run_id) != run_id for uri, run_id in now.items()):
        session_jobs().forget_all_but("", set())
        for key in COMPUTED:
            st.session_state.pop(key, None)
    st.session_state[RUNS] = before | now
