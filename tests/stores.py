"""Stores of runs for tests: a SQLite one in a temporary folder, a real server, and tiny models to put into them."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import gdm_core.models  # noqa: F401
from gdm_core.anomaly.calibration import calibrate
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.data.treatments import treatment_for
from gdm_core.registry import build_model
from gdm_core.storage import save_model
from pipelines.tracking import MlflowTracker

DATASET = {"name": "digits", "digest": "0123456789abcdef", "levels": 17, "specification": {"name": "digits"}}
ROOT = Path(__file__).resolve().parents[1]
NAME = "digits-independent_bernoulli"


@functools.cache
def prepared_database() -> Path:
    """A fresh database with its forty tables, which take seconds to make; tests copy it.

    Two programs make it that start at once, as they do on a first `make run`: both must succeed.
    """
    folder = tempfile.TemporaryDirectory()
    _keep.append(folder)
    path = Path(folder.name) / "mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{path}"}
    code = "from pipelines.store import client; client().search_experiments()"
    programs = [subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT) for _ in range(2)]
    if [program.wait(180) for program in programs] != [0, 0]:
        raise RuntimeError("two programs that started at once could not make a database")
    return path


_keep: list[tempfile.TemporaryDirectory] = []


def new_store(folder: Path) -> str:
    """The address of a fresh SQLite store in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(prepared_database(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@contextlib.contextmanager
def using(address: str) -> Iterator[str]:
    """MLFLOW_TRACKING_URI for a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        yield address


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a SQLite store that the tests of a file share."""
    folder = tmp_path_factory.mktemp("store")
    with using(new_store(folder)):
        yield folder


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A real, lean `mlflow server` over the store in a folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """A model of 4x4 images, counted from noise, with its calibration, stored in a folder."""
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randint(0, 17, (60, 1, 4, 4), generator=generator).to(torch.uint8)
    treatment = treatment_for(None, 17, "binary")
    model = build_model("independent_bernoulli", (1, 4, 4))
    for phase in model.training_phases(TrainingConfig(epochs=1)):
        phase.update(Batch(treatment(stored)))
    tensors = calibrate(model.eval(), treatment(stored[:19])).to_tensors()
    save_model(model, folder, dataset=DATASET, treatment=treatment, calibration=tensors)
    return folder


def finished_run(folder: Path, mean: float = -7.5, seed: int = 0) -> tuple[str, str]:
    """Train, log and register a tiny model as a run does; (run id, version)."""
    tracker = MlflowTracker("digits", "tiny", system_metrics=False)
    tracker.log_parameters({"model": "independent_bernoulli", "seed": seed})
    tracker.set_tags({"gdm.likelihood_kind": "exact"})
    tracker.log_metrics({"train/loss": -mean}, 1)
    tracker.log_metrics({"test/log_likelihood": mean, "test/standard_error": 0.1, "test/count": 360, "epochs": 1}, 1)
    version = tracker.register(tiny_model(folder, seed), NAME, {})
    tracker.finish()
    return tracker.run_id, version


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
