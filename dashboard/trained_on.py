"""The data set a model was trained on, for the pages that show some of its images or measure with them."""

from __future__ import annotations

import json

import streamlit as st

from dashboard.page import plain
from gdm_core.data import DataError, ImageDataset, load_recorded
from gdm_core.storage import Card

DATASETS = 4  # are kept
RETRY_SECONDS = 10  # how long one that is not here is not looked for again, which may mean to read a whole folder


def dataset(card: Card) -> ImageDataset:
    """It, loaded once for all sessions and never from the network; DataError where it is not here as it was."""
    return _dataset(json.dumps(card.dataset.get("specification"), sort_keys=True), card.dataset.get("digest"))


def dataset_or_word(card: Card, split: str, without: str = "") -> ImageDataset | None:
    """The same; None where it is not here, after saying of which split images are missing and what follows."""
    try:
        return dataset(card)
    except DataError as error:
        name = plain(str(card.dataset.get("name", "this data set")))
        st.warning(f"No {split} images of {name} here{without}: {plain(str(error))}",
                   icon=":material/image_not_supported:")  # fmt: skip
        return None


@st.cache_resource(max_entries=DATASETS, show_spinner=False)
def _dataset(specification: str, digest: str | None) -> ImageDataset:
    found = _tried(specification, digest)
    if isinstance(found, DataError):
        raise found
    return found


@st.cache_resource(ttl=RETRY_SECONDS, max_entries=DATASETS, show_spinner=False)
def _tried(specification: str, digest: str | None) -> ImageDataset | DataError:
    try:
        return load_recorded(json.loads(specification), digest, download=False)
    except DataError as error:
        return error
