"""Choosing registered models: which ones a page offers, what they are called, and the picker all pages share.

Every widget that belongs to a view has `bind="query-params"` and a key, so that the address restores it; a value in
the address that is not among the options is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion

SHOWN = {
    "Best of each": "the champion of each name, or its latest version where none is champion",
    "Latest": "the newest version of each name",
    "All versions": "everything that was ever registered",
}


def version_name(version: ModelVersion) -> str:
    """How a version is called in pickers and addresses: digits-nade/3."""
    return f"{version.name}/{version.version}"


def best_of_each(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """One version of each name: the champion, else the latest."""
    best: dict[str, ModelVersion] = {}
    for version in versions:
        if _rank(version) > _rank(best.get(version.name)):
            best[version.name] = version
    return list(best.values())


def select(versions: Sequence[ModelVersion], shown: str) -> list[ModelVersion]:
    """The versions that one of SHOWN means."""
    if shown == "All versions":
        return list(versions)
    if shown == "Latest":
        return [version for version in versions if "latest" in version.aliases]
    return best_of_each(versions)


def pick_models(
    versions: Sequence[ModelVersion], label: str = "Models", key: str = "models",
    default: Callable[[Sequence[ModelVersion]], Sequence[ModelVersion]] = lambda versions: versions[:3],
    most: int | None = None, help: str | None = None,
) -> list[ModelVersion]:  # fmt: skip
    """A picker of several versions, restored from the address (?models=digits-nade/3); in the order chosen."""
    known = {version_name(version): version for version in versions}
    standard = [version_name(version) for version in default(versions)]
    chosen = st.multiselect(
        label, list(known), default=standard, key=key, max_selections=most, help=help, bind="query-params"
    )
    return [known[name] for name in chosen]


def pick_model(
    versions: Sequence[ModelVersion], label: str = "Model", key: str = "model", index: int = 0, help: str | None = None
) -> ModelVersion | None:
    """A picker of one version, restored from the address; None where there is nothing to choose from."""
    known = {version_name(version): version for version in versions}
    if not known:
        return None
    chosen = st.selectbox(
        label, list(known), index=min(index, len(known) - 1), key=key, help=help, bind="query-params"
    )
    return known[chosen]


def _rank(version: ModelVersion | None) -> tuple[bool, bool]:
    aliases = version.aliases if version else ()
    return "champion" in aliases, "latest" in aliases
