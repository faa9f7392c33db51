"""The slow imports of a fresh process, done in a thread while the first page's heading is already on screen."""

from __future__ import annotations

import threading

import streamlit as st


@st.cache_resource(show_spinner=False)
def imports() -> threading.Thread:
    """The thread that imports torch, MLflow and Plotly: one per process, started by the first call."""
    thread = threading.Thread(target=_import_slowly, name="warm-up", daemon=True)
    thread.start()
    return thread


def _import_slowly() -> None:
    import mlflow  # noqa: F401
    import plotly.graph_objects  # noqa: F401

    import gdm_core.models  # noqa: F401
    from pipelines import tracking  # noqa: F401
