"""The slow imports of a fresh process, done in a thread while the server and the first page's heading come up."""

from __future__ import annotations

import threading

_lock = threading.Lock()
_threads: list[threading.Thread] = []


def imports() -> threading.Thread:
    """The thread that imports torch, MLflow and Plotly: one per process, started by the first call."""
    with _lock:
        if not _threads:
            _threads.append(threading.Thread(target=_import_slowly, name="warm-up", daemon=True))
            _threads[0].start()
        return _threads[0]


def _import_slowly() -> None:
    import mlflow  # noqa: F401
    import plotly.graph_objects  # noqa: F401

    import gdm_core.models  # noqa: F401
    from pipelines import tracking  # noqa: F401
