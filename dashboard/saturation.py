"""Images of Markov chains that have left the data for the edge of what a pixel can be: said wherever they are shown."""

from __future__ import annotations

import streamlit as st
from torch import Tensor

from dashboard import trained_on
from dashboard.chains import SATURATED, share_at_the_edge
from gdm_core.contract import RunsChains, has
from gdm_core.data import DataError, ImageDataset, Treatment, evaluation_images
from gdm_core.storage import StoredModel

COMPARED = 300  # validation images


def say_if_saturated(stored: StoredModel, pixels: Tensor) -> None:
    """A warning where pixels drawn by chains, of any shape, are at 0 or 1 far more often than the data's.

    The rule is that of the Chains page. Binary pixels are always there, and other models than those of chains do not
    drift away.
    """
    if stored.model.pixels == "binary" or not has(stored.model, RunsChains):
        return
    excess = share_at_the_edge(pixels) - _edge_of_data(stored)
    if excess > SATURATED:
        st.warning(f"The chains saturate: {excess:.0%} more of the drawn pixels are at 0 or 1 than of the data's. They "
                   "have left the images the model knows: these are no results. Train with a smaller step or a "
                   "stronger penalty.", icon=":material/warning:")  # fmt: skip


def _edge_of_data(stored: StoredModel) -> float:
    """The share of the validation pixels at 0 or 1; 0 where the data set is not on this machine."""
    try:
        data = trained_on.dataset(stored.card)
    except DataError:
        return 0.0
    return _edge(data.digest, stored.treatment.label, data, stored.treatment)


@st.cache_data(max_entries=32, show_spinner=False)
def _edge(digest: str, label: str, _data: ImageDataset, _treatment: Treatment) -> float:
    return share_at_the_edge(evaluation_images(_data.splits["validation"], _treatment)[:COMPARED])
