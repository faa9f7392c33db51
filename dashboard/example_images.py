"""The built-in example images of a data set, made once per process; they are no user's, so all sessions share them."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st
from torch import Tensor

from dashboard import loading
from gdm_core.data.examples import examples

NORMAL = "normal"
COUNT = 8


def example_sets(dataset: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """({kind: stored images}, levels) of the data set on a model's card, the normal ones first.

    Never asks the network. Raises ValueError where the data set's files are not on this machine.
    """
    return _sets(json.dumps(dataset["specification"], sort_keys=True))


@st.cache_resource(max_entries=8, show_spinner=False)
def _sets(specification: str) -> tuple[dict[str, Tensor], int]:
    data = loading.dataset({**json.loads(specification), "download": False})
    made = examples(data, COUNT)
    return {NORMAL: made.normal, **made.odd}, data.levels
