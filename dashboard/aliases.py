"""The versions of one registered model, what its aliases point at, and changing that: promotion and roll-back.

Everything that writes asks first: a button opens a question, and only the answer writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading, tables
from dashboard.page import boundary, plain
from pipelines import tracking

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion

CHAMPION = "champion"


def show_versions(version: ModelVersion, versions: Sequence[ModelVersion]) -> None:
    """All versions of the model's name, the actions on `version`, and the history of the aliases."""
    st.subheader("Versions and aliases", anchor=False)
    table = tables.model_table(versions)
    st.dataframe(table, hide_index=True, column_config=tables.model_columns(table), placeholder="–",
                 alt=f"Versions of {version.name}")  # fmt: skip
    with st.container(horizontal=True):
        if CHAMPION not in version.aliases:
            _offer_promotion(version, next((other for other in versions if CHAMPION in other.aliases), None))
        else:
            _offer_roll_back(version)
    _show_history(version.name)


def _offer_promotion(version: ModelVersion, champion: ModelVersion | None) -> None:
    instead = f" in place of version {champion.version}" if champion else ""
    _ask(
        f"Make version {version.version} champion",
        f"Version {version.version} becomes the champion of {version.name}{instead}. "
        "Everyone who loads the champion gets it from now on; this can be rolled back.",
        "Yes, make it champion", ":material/star:",
        lambda: tracking.set_alias(version.name, CHAMPION, version.version),
    )  # fmt: skip


def _offer_roll_back(version: ModelVersion) -> None:
    earlier = tracking.previous_version(version.name, CHAMPION)
    if earlier is None:
        st.caption("This version is the champion, and there was none before it.")
        return
    _ask(
        f"Roll back to version {earlier}",
        f"Version {earlier}, the champion before, takes the place of version {version.version} again.",
        "Yes, roll back", ":material/undo:",
        lambda: tracking.set_alias(version.name, CHAMPION, earlier),
    )  # fmt: skip


def _ask(label: str, question: str, answer: str, icon: str, write: Callable[[], None]) -> None:
    """A button that asks before it writes; afterwards the page is drawn anew."""
    with st.container(key=f"ask {label}"), st.popover(label, icon=icon):  # a key, lest the next question open by itself
        st.markdown(plain(question))
        if st.button(answer, type="primary", key=f"confirm {label}"):
            with boundary():
                write()
                loading.refresh()
                st.rerun()


def _readable(time: str) -> str:
    """21 Nov 2026, 12:58 UTC; what is no ISO 8601 time stays as it is."""
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%d %b %Y, %H:%M} UTC"
    except ValueError:
        return time


def _show_history(name: str) -> None:
    changes = loading.alias_history(name)
    if changes:
        with st.expander("What the aliases pointed at", icon=":material/history:"):
            lines = [
                f"- {plain(_readable(change.time))}: **{plain(change.alias)}** "
                + (f"was set to version {plain(str(change.version))}" if change.version else "was removed")
                for change in reversed(changes)
            ]
            st.markdown("\n".join(lines))
