"""A page's frame: its place in the navigation, its heading, links between pages, and the boundary for what goes wrong.

To add a page: write views/NAME.py with `def render() -> None`, and add a `Page` to PAGES. The heading is on screen
before the view's file is imported, so that a first visitor does not look at an empty page while torch loads.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import warm_up
from dashboard.jobs import JobsFull
from pipelines.store import shown_address, store_address, ui_address
from pipelines.tracker import StoreError

FOLDER = Path(__file__).parent
LOGO, ICON = str(FOLDER / "logo.svg"), str(FOLDER / "icon.svg")  # local files: nothing is fetched from elsewhere
logger = logging.getLogger("dashboard")


@dataclass(frozen=True)
class Page:
    """One page: `name` is its address and the name of its file in views/."""

    name: str
    title: str
    icon: str
    summary: str


PAGES = (
    Page("compare", "Compare", ":material/leaderboard:", "Registered models side by side: what they cost, how likely "
         "they find images they have never seen, and by how much two of them differ."),
    Page("samples", "Samples", ":material/casino:", "Chosen models draw images here and now, all from the same seed."),
    Page("interpolate", "Interpolate", ":material/route:", "From one image to another through a model's latent "
         "space, or on a random walk in it."),
    Page("completion", "Completion", ":material/auto_fix_high:", "Hide pixels of an image, by a mask or a brush, and "
         "see models fill them in, exactly or approximately."),
    Page("surprise", "Surprise", ":material/grain:", "How much each pixel of an image surprises a model, and what the "
         "model expected in its place."),
    Page("classes", "Classes", ":material/category:", "Which class a model finds each image to be of, how sure it "
         "is, how often it is right, and images it draws of a class."),
    Page("filters", "Filters", ":material/blur_on:", "The hidden units of a model as images: their weights, or the "
         "images that switch them on, the most used first."),
    Page("chains", "Chains", ":material/conversion_path:", "Energy models wander from image to image by their Markov "
         "chains: what they pass, how their energy moves, and how quickly they forget."),
    Page("anomalies", "Anomalies", ":material/troubleshoot:", "How strange a model finds your images, with a "
         "calibrated p-value, a verdict at the false-alarm rate you choose, and a map of the strange pixels."),
    Page("runs", "Runs", ":material/timeline:", "Everything that was trained, laid side by side: metrics, parameters, "
         "and samples as they became better."),
    Page("model", "Model", ":material/deployed_code:", "One registered model: what it is, what it can do, where it "
         "comes from, its versions and its files."),
)  # fmt: skip


def streamlit_page(entry: Page) -> st.Page:
    """The page as Streamlit's navigation takes it; the first one is the start page."""
    return st.Page(
        functools.partial(show, entry), title=entry.title, icon=entry.icon,
        url_path="start" if entry == PAGES[0] else entry.name, default=entry == PAGES[0],
    )  # fmt: skip


def start_page_by_name() -> st.Page:
    """The start page again, unseen in the navigation: Streamlit gives it the address / alone, but people type names."""
    entry = PAGES[0]
    return st.Page(functools.partial(show, entry), title=entry.title, url_path=entry.name, visibility="hidden")


def show(entry: Page) -> None:
    """Heading first, then the view, inside the boundary."""
    _forget_other_page(entry.name)
    st.title(entry.title, anchor=False)
    st.caption(entry.summary)
    with boundary():
        _wait_for_imports()
        importlib.import_module("dashboard.replaced").forget_replaced()
        importlib.import_module(f"dashboard.views.{entry.name}").render()


def _wait_for_imports() -> None:
    """The first visitor of a process waits for torch and MLflow, and is told so."""
    imports = warm_up.imports()
    if imports.is_alive():
        with st.spinner("The first page of a fresh start takes a few seconds"):
            imports.join()


def _forget_other_page(name: str) -> None:
    """Drop what the widgets of the page before held: keys are names in the address, and pages share some of them.

    Streamlit keeps such a value long enough for a widget of the same key on the next page to find it, and then takes
    it away. What a session keeps for itself has a key that begins with an underscore, and stays.
    """
    if st.session_state.get("_page", name) != name:
        for key in [key for key in st.session_state if not str(key).startswith("_")]:
            del st.session_state[key]
    st.session_state["_page"] = name


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """What goes wrong inside is logged and becomes one sentence on the page; what is drawn outside stays usable."""
    try:
        yield
    except Exception as error:
        logger.exception("a page failed")
        st.error(sentence(error), icon=":material/error:")


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The boundary around a function: for fragments, which run again without the rest of their page."""

    @functools.wraps(function)
    def inside(*arguments: Any, **named: Any) -> Any:
        with boundary():
            return function(*arguments, **named)

    return inside


def sentence(error: Exception) -> str:
    """What the page says of an error: its own words where they were written for the reader, else where to look."""
    if isinstance(error, (StoreError, JobsFull)) or (isinstance(error, ValueError) and _raised_by_us(error)):
        text = str(error)
        return plain(text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else "."))
    return (
        f"This part of the page failed ({type(error).__name__}); the details are in the dashboard's log. "
        "Reload the page, or choose something else."
    )


def _raised_by_us(error: Exception) -> bool:
    """Whether the line that raised is in this project, whose ValueErrors are sentences for the reader."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return module.partition(".")[0] in ("gdm_core", "pipelines", "dashboard")


def plain(text: str) -> str:
    """Text from a store or a user, written so that Markdown shows it as it is."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+!|<>$:~^=&" else character for character in text)


def link(name: str, label: str, **query: Any) -> None:
    """A link to another page with a view of it, such as link("model", "digits-nade", model="digits-nade")."""
    entry = next((entry for entry in PAGES if entry.name == name), None)
    if entry is not None:
        st.page_link(streamlit_page(entry), label=plain(label), icon=entry.icon, query_params=query)


def store_note() -> None:
    """Where runs and models are kept, and the way into MLflow's own pages."""
    st.caption(f"Runs and models are kept in  \n{plain(shown_address(store_address()))}")
    if address := ui_address():
        st.link_button("Open MLflow", address, icon=":material/open_in_new:", width="stretch")
