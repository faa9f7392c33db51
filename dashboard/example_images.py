"""The built-in example images of a data set, made once per process; they are no user's, so all sessions share them."""

from __future__ import annotations

import streamlit as st
from torch import Tensor

from gdm_core.data import ImageDataset
from gdm_core.data.examples import examples

NORMAL = "normal"
COUNT = 8


def example_sets(data: ImageDataset) -> dict[str, Tensor]:
    """{kind: stored images} of a data set, the normal ones first."""
    return _sets(data.digest, data)


@st.cache_resource(max_entries=8, show_spinner=False)
def _sets(digest: str, _data: ImageDataset) -> dict[str, Tensor]:
    made = examples(_data, COUNT)
    return {NORMAL: made.normal, **made.odd}
