"""`make run`: MLflow's server, the dashboard and the starter set, started together and stopped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.store import PROJECT_ROOT, client, is_server, sqlite_path, store_address

HOST = "127.0.0.1"
# Chromium refuses to open these (of the ranges searched here).
REFUSED_PORTS = {5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6697, 10080}
STOP_SECONDS = 8
GENTLY = ["nice", "-n", "10"]  # what trains in the background leaves the processor to who looks at a page
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}
# The default server starts eleven processes, which leave nothing for training on two cores.
LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass
class Service:
    """A process of ours, in a group of its own so that it can be stopped with all it started."""

    name: str
    process: subprocess.Popen

    def stop(self) -> None:
        """Ask the group to end; after a while, end it."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            _signal_group(self.process.pid, sent)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            if not _group_lives(self.process.pid, patience=1.0):
                return


def serve(train_starter: bool, mlflow_port: int, dashboard_port: int) -> int:
    """Run everything until Ctrl-C (or SIGTERM), or until a service ends; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    services: list[Service] = []
    try:
        return _serve(services, train_starter, mlflow_port, dashboard_port)
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
        return 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        for service in reversed(services):
            service.stop()


def _serve(services: list[Service], train_starter: bool, mlflow_port: int, dashboard_port: int) -> int:
    address = store_address()
    own_server = not is_server(address)
    if own_server:
        address = f"sqlite:///{sqlite_path(address)}"  # absolute: the services run in the project's folder
    port = free_port(mlflow_port, "MLflow") if own_server else None
    ui = f"http://{HOST}:{port}" if own_server else address
    shown_at = free_port(dashboard_port, "dashboard", (port,))
    environment = {**os.environ, **QUIET, "GDM_MLFLOW_UI": ui, "MLFLOW_TRACKING_URI": address}
    services.append(_start("dashboard", _dashboard_command(shown_at), environment))
    if own_server:
        client(address)  # makes or upgrades the tables, which several processes at once must not
        services.append(_start("MLflow", mlflow_command(address, port), environment | LEAN))
    if train_starter:
        services.append(_start("starter set", [*GENTLY, sys.executable, "-m", "pipelines", "starter"], environment))
    page = f"http://{HOST}:{shown_at}"
    _wait_for(f"{page}/_stcore/health", services[0])
    print(f"\n  dashboard  {page}\n  MLflow     {ui}\n\nCtrl-C stops everything.\n", flush=True)
    return _watch(services)


def _watch(services: Sequence[Service]) -> int:
    """Wait; the starter set may end, the others must not."""
    while True:
        for service in services:
            if service.name != "starter set" and service.process.poll() is not None:
                print(f"{service.name} ended with status {service.process.returncode}", file=sys.stderr, flush=True)
                return 1
        time.sleep(0.5)


def mlflow_command(address: str, port: int) -> list[str]:
    """MLflow's server over a SQLite store, with one worker."""
    artifacts = sqlite_path(address).parent / "artifacts"
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", address, "--artifacts-destination",
        str(artifacts), "--host", HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def _dashboard_command(port: int) -> list[str]:
    return [
        sys.executable, "-m", "dashboard", "--server.address", HOST, "--server.port", str(port), "--server.headless",
        "true",
    ]  # fmt: skip


def free_port(first: int, purpose: str, promised: Sequence[int | None] = ()) -> int:
    """The first free port from `first` on that a browser will open and that is not promised to another service."""
    for port in range(first, first + 100):
        if port not in REFUSED_PORTS and port not in promised and _is_free(port):
            if port != first:
                print(f"port {first} is taken: {purpose} uses {port}", flush=True)
            return port
    raise ValueError(f"no free port for {purpose} between {first} and {first + 99}: free one, or name another")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _start(name: str, command: list[str], environment: dict[str, str]) -> Service:
    """Start a service; all but the starter set write to a log file beside the store."""
    log = None if name == "starter set" else (_log_folder() / f"{name.lower()}.log").open("w")
    try:
        process = subprocess.Popen(
            command, env=environment, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    finally:
        if log is not None:
            log.close()
    return Service(name, process)


def _log_folder() -> Path:
    folder = PROJECT_ROOT / "mlruns" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wait_for(url: str, service: Service, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if service.process.poll() is not None:
            raise ValueError(f"{service.name} did not start: see {_log_folder() / f'{service.name.lower()}.log'}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ValueError(f"{service.name} did not answer at {url} within {seconds:.0f} s")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _signal_group(group: int, sent: signal.Signals) -> None:
    try:
        os.killpg(group, sent)
    except ProcessLookupError:
        return


def _group_lives(group: int, patience: float) -> bool:
    """Whether a process of the group is left after a moment's patience."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True
