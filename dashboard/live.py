"""Runs while they train: a part of a page that renews itself every few seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading
from dashboard.page import guarded, plain

if TYPE_CHECKING:
    from pipelines.tracking import RunRecord

RENEWED_SECONDS = 3
SILENT_SECONDS = 120  # a live run is heard of every few seconds, and what is known of it may be half a minute old
SEEN = "live runs seen"
FIRST_COMMAND = "python -m pipelines train nade --dataset digits"


@st.fragment(run_every=RENEWED_SECONDS)
@guarded
def show_running() -> None:
    """A progress bar for each run that trains now; when one starts or ends, the whole page is drawn again."""
    records = loading.running()
    ids = {record.run_id for record in records}
    before = st.session_state.get(SEEN)
    st.session_state[SEEN] = ids
    if before is not None and before != ids:
        loading.refresh()
        st.rerun()
    if records:
        with st.container(border=True):
            st.markdown(f"**Training now** ({len(records)})")
            for record in records:
                _show_progress(record)


def say_how_to_begin(what: str) -> None:
    """The empty state of a page: what trains already, or the command that trains a first model."""
    if loading.running():
        st.info(f"There is no {what} yet. What trains now is above; it appears here when its run ends.",
                icon=":material/hourglass_top:")  # fmt: skip
    else:
        st.info(f"There is no {what} yet. Train one, and it appears here:", icon=":material/rocket_launch:")
        st.code(FIRST_COMMAND, language="bash")


def progress_of(record: RunRecord, epoch: int) -> float:
    """The fraction of the asked epochs that is done, 0 where that is not known."""
    try:
        return min(1.0, max(0.0, epoch / float(record.params.get("epochs", ""))))
    except (ValueError, ZeroDivisionError):
        return 0.0


def _show_progress(record: RunRecord) -> None:
    silent = (datetime.now(UTC) - loading.last_sign_of_life(record)).total_seconds()
    if silent > SILENT_SECONDS:
        silence = f"{plain(_name(record))}: no sign of life for {silent / 60:,.0f} minutes."
        st.caption(f"{silence} If it was stopped, this goes on from its last checkpoint: "
                   f"`python -m pipelines train --resume {record.run_id}`")  # fmt: skip
        return
    losses = loading.curve(record, "train/loss")
    epoch, loss = losses[-1] if losses else (0, None)
    asked = record.params.get("epochs", "?")
    done = ", evaluating" if str(epoch) == asked else ""
    parts = [f"epoch {epoch} of {asked}{done}", f"{record.seconds:,.0f} s"]
    if loss is not None:
        parts.insert(1, f"loss {loss:.4g}")
    st.progress(progress_of(record, epoch), text=plain(f"{_name(record)}: {', '.join(parts)}"))


def _name(record: RunRecord) -> str:
    return f"{record.tags.get('gdm.model', record.name)} on {record.tags.get('gdm.dataset', record.experiment)}"
