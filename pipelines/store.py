"""The store of runs and models: which one it is, how it is made ready, and what is said when it is down.

The default is a SQLite file in the project's folder; MLFLOW_TRACKING_URI names another (sqlite:/// or http(s)://).
MLflow takes two seconds to import, so it is imported by what needs it, not with this file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracker import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROJECT_ROOT = Path(__file__).resolve().parents[1]
ARTIFACT_SCHEME = "mlflow-artifacts"
LOCK_SECONDS = 120  # a first start makes some forty tables, slowly on a busy machine
SERVER_SECONDS = 3  # how long a server may take to say that it is there
RECHECK_SECONDS = 5

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own defaults wait for a dead server for four minutes; these ride out ten seconds of it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

_guard = threading.Lock()
_clients: dict[str, MlflowClient] = {}
_seen: dict[str, float] = {}  # server -> when it last answered


def store_address() -> str:
    """The store's address: MLFLOW_TRACKING_URI, else the project's own SQLite file (absolute)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{PROJECT_ROOT / 'mlruns' / 'mlflow.db'}"


def ui_address() -> str | None:
    """MLflow's own pages: GDM_MLFLOW_UI, else the store where it is a server; without a password, for it is shown."""
    store = store_address()
    address = os.environ.get("GDM_MLFLOW_UI") or (store if is_server(store) else None)
    return shown_address(address).rstrip("/") if address else None


def is_server(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def store_exists() -> bool:
    """Whether there is a store to read; a SQLite file that was never made holds no runs, and reading makes none."""
    address = store_address()
    return is_server(address) or sqlite_path(address).is_file()


def sqlite_path(address: str) -> Path:
    """The file behind sqlite:///PATH; StoreError for an address of any other kind."""
    if not address.startswith("sqlite:///"):
        shown = address.partition("://")[0]
        raise StoreError(
            f"no store of kind {shown!r} is supported: set MLFLOW_TRACKING_URI to sqlite:///FILE or http(s)://"
        )
    return Path(address.removeprefix("sqlite:///").partition("?")[0]).absolute()


def client(address: str | None = None) -> MlflowClient:
    """A client of the store, made ready on first use: checked, its tables made or upgraded under a file lock.

    Raises StoreError in a few seconds where the store is down, locked, damaged or of an unknown kind.
    """
    address = address or store_address()
    with _guard:
        check_server(address) if is_server(address) else check_sqlite(sqlite_path(address))
        if address in _clients and not is_server(address) and not sqlite_path(address).is_file():
            raise StoreError(f"the store {sqlite_path(address)} is gone: put it back, or restart this program")
        if address not in _clients:
            _clients[address] = _prepared_client(address)
        return _clients[address]


def check_server(address: str) -> None:
    """Raise StoreError unless the server answers; an answer counts for some seconds."""
    import requests

    if time.monotonic() - _seen.get(address, -RECHECK_SECONDS) < RECHECK_SECONDS:
        return
    try:
        answer = requests.get(f"{address.rstrip('/')}/health", timeout=SERVER_SECONDS)
    except requests.RequestException:
        what = f"the MLflow server at {shown_address(address)} does not answer"
        raise StoreError(f"{what}: start it, or set MLFLOW_TRACKING_URI to another store") from None
    if answer.status_code >= 500:
        raise StoreError(f"the MLflow server at {shown_address(address)} fails ({answer.status_code}): look at its log")
    _seen[address] = time.monotonic()


def check_sqlite(path: Path) -> None:
    """Raise StoreError where the file is no database, damaged or locked; a missing one is fine. Takes a millisecond."""
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=SERVER_SECONDS)
        with contextlib.closing(connection) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise StoreError(_sqlite_sentence(path, str(error))) from None


@contextlib.contextmanager
def store_errors(address: str | None = None) -> Iterator[None]:
    """Turn what MLflow and the database raise into a StoreError of one sentence."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    address = address or store_address()
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        _seen.pop(address, None)
        if is_server(address):
            check_server(address)  # one that is down is named as such
        first_line = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise StoreError(f"the store {shown_address(address)} refused: {first_line}") from error


def _prepared_client(address: str) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

    from pipelines.artifact_store import LocalOrServedArtifacts

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    _artifact_repository_registry.register(ARTIFACT_SCHEME, LocalOrServedArtifacts)
    with store_errors(address):
        if not is_server(address):
            _prepare_database(sqlite_path(address), address)
        return MlflowClient(tracking_uri=address, registry_uri=address)


def _prepare_database(path: Path, address: str) -> None:
    """Make the tables, or bring those of an older MLflow up to date (a copy is kept); one process at a time."""
    import filelock
    from mlflow.store.db import utils

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            engine = utils.create_sqlalchemy_engine(address)
            if not utils._all_tables_exist(engine) and utils._is_empty_database(engine):
                utils._initialize_tables(engine)
            elif utils._get_schema_version(engine) != utils._get_latest_schema_revision():
                shutil.copy2(path, f"{path}.before-upgrade-{int(time.time())}")
                utils._upgrade_db(engine)
            engine.dispose()
    except filelock.Timeout:
        raise StoreError(f"{path} is being prepared by another program for {LOCK_SECONDS} s: try again later") from None


def _sqlite_sentence(path: Path, reason: str) -> str:
    if "locked" in reason:
        return f"the store {path} is locked by another program: try again, or stop that program"
    return f"the store {path} cannot be read ({reason}): restore it from a copy, or move it away to start afresh"


def shown_address(address: str) -> str:
    """The address of a server without a user's name and password in it; that of a file as it is."""
    scheme, separator, rest = address.partition("://")
    if not is_server(address):
        return address
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
