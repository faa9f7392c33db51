"""Choosing registered models: which ones a page offers, what they are called, and the picker all pages share.

Every widget that belongs to a view has `bind="query-params"` and a key, so that the address restores it; a value in
the address that is not among the options is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.page import plain

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion

SHOWN = {
    "Best of each": "the champion of each name, or its latest version where none is champion",
    "Latest": "the newest version of each name",
    "All versions": "everything that was ever registered",
}
NOT_REGISTERED = "not among the registered versions (any more)"


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
    versions: Sequence[ModelVersion], default: Callable[[Sequence[ModelVersion]], Sequence[ModelVersion]],
    most: int | None = None,
) -> list[ModelVersion]:  # fmt: skip
    """A picker of several versions, restored from the address (?models=digits-nade/3); in the order chosen."""
    known = {version_name(version): version for version in versions}
    standard = [version_name(version) for version in default(versions)][:most]
    return [known[name] for name in pick_some("Models", list(known), standard, "models", most=most)]


def pick_model(
    versions: Sequence[ModelVersion], label: str = "Model", key: str = "model", index: int = 0
) -> ModelVersion | None:
    """A picker of one version, restored from the address; None where there is nothing to choose from."""
    known = {version_name(version): version for version in versions}
    names = list(known)
    chosen = pick_one(label, names, names[min(index, len(names) - 1)] if names else None, key)
    return known.get(chosen) if chosen else None


def say_if_gone(versions: Sequence[ModelVersion], key: str = "models") -> None:
    """A link to versions that are no longer registered says so; to be called before the picker of this key."""
    say_if_not_offered([version_name(version) for version in versions], key, lambda name: NOT_REGISTERED)


def say_if_not_offered(offered: Collection[str], key: str, why: Callable[[str], str]) -> None:
    """A link to what a picker does not offer says so, and why; to be called before the picker of this key."""
    note = f"_gone {key}"  # kept until the page is left, because a page draws itself again when a job of its ends
    if key not in st.session_state:
        st.session_state[note] = st.query_params.get_all(key)
    wanted = st.session_state.get(note, [])
    if said := _gone([name for name in wanted if name not in offered], len(wanted), why):
        st.warning(said, icon=":material/link_off:")


def pick_some(
    label: str, options: Sequence[str], standard: Sequence[str], key: str, most: int | None = None,
    help: str | None = None, placeholder: str | None = None,
) -> list[str]:  # fmt: skip
    """A picker of several options, restored from the address; `standard` where the address names none of them."""
    in_address = [option for option in st.query_params.get_all(key) if option in options]
    chosen = st.session_state.get(key)
    if chosen is None and not in_address:
        st.session_state[key] = [option for option in standard if option in options]
    elif chosen is not None and not set(chosen) <= set(options):
        kept = [option for option in chosen if option in options]
        st.session_state[key] = kept or [option for option in standard if option in options]
    return st.multiselect(
        label, list(options), key=key, max_selections=most, help=help, placeholder=placeholder, wrap=True,
        bind="query-params",
    )  # fmt: skip


def pick_one(
    label: str, options: Sequence[str], standard: str | None, key: str, help: str | None = None
) -> str | None:
    """A picker of one option, restored from the address; `standard` where the address names none of them.

    A picker that nobody touched stays out of the address: such a link shows what is standard on the day it is opened.
    """
    chosen = st.session_state.get(key)
    if chosen not in options and (chosen is not None or st.query_params.get(key) not in options):
        st.session_state[key] = standard
    return st.selectbox(
        label, list(options), index=None, key=key, help=help, bind="query-params",
        disabled=not options,
    )  # fmt: skip


def with_former(key: str, options: Sequence[str], former: Mapping[str, str]) -> list[str]:
    """The options of a widget, and what an old link calls one of them {former name: option}; called before the widget.

    Once the widget has read the address, it holds the option itself.
    """
    chosen = st.session_state.get(key)
    if isinstance(chosen, list) and not former.keys().isdisjoint(chosen):
        st.session_state[key] = list(dict.fromkeys(former.get(name, name) for name in chosen))
    elif isinstance(chosen, str):
        st.session_state[key] = former.get(chosen, chosen)
    wanted = st.query_params.get_all(key) if chosen is None else []
    return [*options, *(name for name in wanted if name in former and name not in options)]


def _gone(names: Sequence[str], wanted: int, why: Callable[[str], str]) -> str | None:
    """The sentence about those of the wanted names that are not offered, None where all are."""
    if not names:
        return None
    by_reason = {reason: [name for name in names if why(name) == reason] for reason in map(why, names)}
    shown = "; ".join(f"{_few(those)}: {reason}" for reason, those in by_reason.items())
    instead = "the others are" if len(names) < wanted else "another choice is"
    return f"{shown}, so {instead} shown."


def _few(names: Sequence[str]) -> str:
    return ", ".join(plain(name[:100]) for name in names[:3]) + ", ..." * (len(names) > 3)


def _rank(version: ModelVersion | None) -> tuple[bool, bool]:
    aliases = version.aliases if version else ()
    return "champion" in aliases, "latest" in aliases
