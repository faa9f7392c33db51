"""Everything the pages read of the store, and its caches: nothing else in the dashboard reads it or loads a model.

All caches are shared by all browser sessions, so what they return must not be changed. Their keys hold the store's
address, so that another store never answers with this one's data. What can still change (the list of versions, runs
that are going on) is kept for seconds; what cannot (a registered version, a finished run) until it is pushed out.

    versions()                    every registered version, newest first
    model(uri)                    a LoadedModel; `with loaded.lock: loaded.model.sample(...)`
    card(uri), version_files(uri) what a version says of itself, and its files
    runs(), run(run_id)           runs, newest first; one run
    curve(record, key)            a metric's (step, value)s
    grids(record), picture(...)   sample grids and their PNG bytes
    per_image(record_or_run_id)   {"validation": (N,), "test": (N,)} in nats
    refresh()                     after something was written: forget what may have changed
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from pipelines.store import store_address

if TYPE_CHECKING:
    from datetime import datetime

    import numpy

    from gdm_core.contract import GenerativeModel
    from gdm_core.storage import Card, StoredModel
    from pipelines.tracking import AliasChange, ModelVersion, RunRecord

NEWEST_RUNS = 1000  # are listed, at most
LIST_SECONDS = 5  # how old a list of versions or runs may be
LIVE_SECONDS = 2  # how old the numbers of a running run may be
HEARD_SECONDS = 30  # and the moment it was last heard of
MODELS, CURVES, PICTURES = 12, 2000, 500  # how many are kept


@dataclass(frozen=True)
class LoadedModel:
    """A model shared by all sessions: hold `lock` while it computes, and change nothing about it."""

    stored: StoredModel
    uri: str
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> GenerativeModel:
        return self.stored.model


def versions() -> tuple[ModelVersion, ...]:
    """Every registered version, newest first. StoreError where the store is down."""
    return _versions(store_address())


def model(uri: str) -> LoadedModel:
    """The model of models:/NAME/VERSION or models:/NAME@ALIAS, loaded once per process.

    StoreError where it is gone, StorageError where its files are not what they say.
    """
    name, version = _resolved(uri)
    return _model(store_address(), name, version, _birth(f"models:/{name}/{version}"))


def card(uri: str) -> Card:
    """What a registered version says of itself, without loading its weights."""
    from gdm_core.storage import CARD, read_card

    return read_card(version_files(uri)[CARD].parent)


def version_files(uri: str) -> dict[str, Path]:
    """The data files of a registered version on this machine: {"model.json": path, ...}."""
    return _version_files(store_address(), uri, _birth(uri))


def runs() -> tuple[RunRecord, ...]:
    """The runs of all data sets, newest first."""
    return _runs(store_address())


def running() -> tuple[RunRecord, ...]:
    """The runs that are going on now."""
    return _running(store_address())


def run(run_id: str) -> RunRecord:
    """One run; StoreError where there is none of this id."""
    known = {record.run_id: record for record in runs()}
    return known[run_id] if run_id in known else _run(store_address(), run_id, _now(LIST_SECONDS))


def runs_by_id(run_ids: list[str]) -> list[RunRecord]:
    """Runs in the order asked for."""
    return [run(run_id) for run_id in run_ids]


def curve(record: RunRecord, key: str) -> tuple[tuple[int, float], ...]:
    """A metric of a run over its steps; empty where it has none."""
    if key not in record.metrics:
        return ()
    return _curve(store_address(), record.run_id, key, _freshness(record))


def last_sign_of_life(record: RunRecord) -> datetime:
    """When a run that goes on was last heard of, as known for half a minute: it is read from two whole curves."""
    return _last_sign_of_life(store_address(), record.run_id, record)


def grids(record: RunRecord) -> dict[str, dict[int, str]]:
    """The pictures of a run: {key: {step: path}}."""
    return _grids(store_address(), record.run_id, _freshness(record))


def files(record: RunRecord) -> tuple[str, ...]:
    """The files at the top of a run's artifacts."""
    return _files(store_address(), record.run_id, _freshness(record))


def file(run_id: str, path: str) -> bytes:
    """A file of a run, small and written once: a picture, a traceback."""
    return _file(store_address(), run_id, path)


def per_image(run_id: str) -> dict[str, numpy.ndarray]:
    """Per-image log-likelihoods of a finished run in nats: {"validation": (N,), "test": (N,)}; empty where none."""
    return _per_image(store_address(), run_id)


def alias_history(name: str) -> tuple[AliasChange, ...]:
    """What the aliases of a registered model pointed at, oldest first."""
    return _alias_history(store_address(), name)


def refresh() -> None:
    """Forget what may have changed, after something was written."""
    for cache in (_versions, _runs, _running, _run, _alias_history, _alias_target):
        cache.clear()


def _resolved(uri: str) -> tuple[str, str]:
    """(name, version) of an address; the list knows most of them without asking the store again."""
    for version in versions():
        names = {version.uri, *(f"models:/{version.name}@{alias}" for alias in version.aliases)}
        if uri in names:
            return version.name, version.version
    return _alias_target(store_address(), uri)


def _birth(uri: str) -> str:
    """What tells a version from an earlier one of the same number: a name that was deleted counts from 1 again."""
    return next((f"{one.run_id} {one.created.isoformat()}" for one in versions() if one.uri == uri), "")


def _freshness(record: RunRecord) -> int:
    """A cache key that stays for a run that has ended, and changes every few seconds for one that goes on."""
    return 0 if record.end else _now(LIVE_SECONDS)


def _now(seconds: int) -> int:
    return int(time.time() // seconds)


def _tracking() -> Any:
    """pipelines.tracking, imported by who first needs it: it brings torch."""
    from pipelines import tracking

    return tracking


@st.cache_resource(ttl=LIST_SECONDS, max_entries=4, show_spinner=False)
def _versions(address: str) -> tuple[ModelVersion, ...]:
    return tuple(_tracking().list_versions())


@st.cache_resource(ttl=LIST_SECONDS, max_entries=16, show_spinner=False)
def _alias_target(address: str, uri: str) -> tuple[str, str]:
    return _tracking().resolve(uri)


@st.cache_resource(max_entries=MODELS, show_spinner=False)
def _model(address: str, name: str, version: str, birth: str) -> LoadedModel:
    uri = f"models:/{name}/{version}"
    return LoadedModel(_tracking().load_registered(uri), uri)


@st.cache_resource(max_entries=100, show_spinner=False)
def _version_files(address: str, uri: str, birth: str) -> dict[str, Path]:
    return _tracking().version_files(uri)


@st.cache_resource(ttl=LIST_SECONDS, max_entries=4, show_spinner=False)
def _runs(address: str) -> tuple[RunRecord, ...]:
    return tuple(_tracking().runs(limit=NEWEST_RUNS))


@st.cache_resource(ttl=LIVE_SECONDS, max_entries=4, show_spinner=False)
def _running(address: str) -> tuple[RunRecord, ...]:
    return tuple(_tracking().runs(status="RUNNING"))


@st.cache_resource(ttl=HEARD_SECONDS, max_entries=100, show_spinner=False)
def _last_sign_of_life(address: str, run_id: str, _record: RunRecord) -> datetime:
    return _tracking().last_sign_of_life(_record)


@st.cache_resource(max_entries=100, show_spinner=False)
def _run(address: str, run_id: str, now: int) -> RunRecord:
    return _tracking().get_run(run_id)


@st.cache_resource(max_entries=CURVES, show_spinner=False)
def _curve(address: str, run_id: str, key: str, freshness: int) -> tuple[tuple[int, float], ...]:
    return tuple(_tracking().metric_history(run_id, key))


@st.cache_resource(max_entries=PICTURES, show_spinner=False)
def _grids(address: str, run_id: str, freshness: int) -> dict[str, dict[int, str]]:
    return _tracking().sample_grids(run_id)


@st.cache_resource(max_entries=PICTURES, show_spinner=False)
def _files(address: str, run_id: str, freshness: int) -> tuple[str, ...]:
    return tuple(_tracking().list_files(run_id))


@st.cache_resource(max_entries=PICTURES, show_spinner=False)
def _file(address: str, run_id: str, path: str) -> bytes:
    return _tracking().read_file(run_id, path)


@st.cache_resource(max_entries=100, show_spinner=False)
def _per_image(address: str, run_id: str) -> dict[str, numpy.ndarray]:
    return _tracking().per_image_likelihood(run_id)


@st.cache_resource(ttl=LIST_SECONDS, max_entries=100, show_spinner=False)
def _alias_history(address: str, name: str) -> tuple[AliasChange, ...]:
    return tuple(_tracking().alias_history(name))
