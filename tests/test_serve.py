"""`make run`'s command: both services answer, a taken port is stepped over, and Ctrl-C leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.serve import HOST, free_port

ROOT = Path(__file__).resolve().parents[1]
FIRST_PORT = 21340


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, FIRST_PORT))
        listener.listen()
        yield FIRST_PORT


def test_the_next_free_port_is_named(taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert free_port(taken_port, "MLflow") == taken_port + 1
    assert f"port {taken_port} is taken: MLflow uses {taken_port + 1}" in capsys.readouterr().out
    assert free_port(5060, "MLflow") not in (5060, 5061)  # browsers refuse these


def test_both_services_answer_and_ctrl_c_stops_everything(tmp_path: Path, taken_port: int) -> None:
    command = [sys.executable, "-m", "pipelines", "serve", "--no-starter", "--mlflow-port", str(taken_port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    serving = subprocess.Popen(
        [*command, "--dashboard-port", str(taken_port)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        dashboard, mlflow = read_addresses(serving)
        assert {f"{HOST}:{taken_port + 1}", f"{HOST}:{taken_port + 2}"} == {dashboard, mlflow}
        assert answers(f"http://{dashboard}/_stcore/health") and answers(f"http://{mlflow}/health")
        started = psutil.Process(serving.pid).children(recursive=True)
        assert len(started) >= 2
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(30) == 0
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def read_addresses(serving: subprocess.Popen) -> tuple[str, str]:
    """(dashboard, MLflow) as printed, host and port."""
    found: dict[str, str] = {}
    for line in serving.stdout:
        if match := re.match(r"\s+(dashboard|MLflow)\s+http://(\S+)", line):
            found[match[1]] = match[2]
        if len(found) == 2:
            return found["dashboard"], found["MLflow"]
    raise AssertionError(f"it ended before it printed both addresses: {found}")


def answers(url: str, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status == 200
        except OSError:
            time.sleep(0.2)
    return False
