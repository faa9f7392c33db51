"""The slow imports of a fresh process, done in a thread while the server and the first page's heading come up."""

from __future__ import annotations

import gc
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

    spare_the_collector()


def spare_the_collector() -> None:
    """Take what is alive now, nearly all of it imported code, out of the garbage collector's sight for good.

    Streamlit runs a full collection after every script run. Looking at the 365,000 objects of these imports takes
    0.2 to 0.3 s with the interpreter locked, which every second widget change would wait for.
    """
    gc.collect()
    gc.freeze()
