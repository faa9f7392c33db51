"""How quickly the dashboard answers in a real browser, over the models and runs of the current store.

    python benchmarks/dashboard.py [--loads 7]       some ten minutes; wants a quiet machine

Prints benchmarks/results/dashboard.md and writes it, with the same numbers as dashboard.json beside it. It starts a
dashboard of its own, and a trivial Streamlit page with one chart as this machine's yardstick, opens both in Chromium in
turns, and ends both. All times are taken inside the browser, frame by frame. The exit status is 1 where a goal is
missed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import record
import typer
from browser_actions import measure_changes, measure_loads, measure_scoring
from playwright.sync_api import sync_playwright

from pipelines import tracking
from pipelines.serve import HOST, QUIET, Service, free_port
from pipelines.starter import DATASET
from tests.browser import ADVICE, ARGUMENTS, find_browser

COMMAND = "python benchmarks/dashboard.py"
GOALS = {"heading": 1.0, "table": 1.0, "charts": 2.5, "change": 0.3, "scoring": 1.0}  # seconds, medians
PAGES = (  # the first is Compare
    "", "samples", "interpolate", "completion", "surprise", "classes", "filters", "chains", "anomalies", "runs",
    "model",
)  # fmt: skip
START_SECONDS = 90
YARDSTICK = """
import plotly.graph_objects as go
import streamlit as st

st.title("Yardstick")
st.plotly_chart(go.Figure(go.Scatter(x=[1, 2, 3], y=[1, 3, 2])))
"""


@contextlib.contextmanager
def streamlit(script: Path, first_port: int, folder: Path) -> Iterator[str]:
    """A Streamlit server of our own, ended with all it started; gives its address."""
    port = free_port(first_port, script.stem)
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.address", HOST, "--server.port",
               str(port), "--server.headless", "true"]  # fmt: skip
    log = folder / f"{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=record.ROOT, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://{HOST}:{port}/_stcore/health", process, log)
        yield f"http://{HOST}:{port}"
    finally:
        Service(script.stem, process).stop()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"Streamlit did not start: {log.read_text()[-2000:]}")


def verdicts(loads: list[dict], moved: list[dict], scored: dict[str, Any]) -> list[str]:
    """What misses its goal, in words."""
    missed = [
        f"{row['page']}: {what} {row[what]['median']:.2f} s, goal {GOALS[what]} s"
        for row in loads[1:] for what in ("heading", "table", "charts")
        if row[what] and row[what]["median"] > GOALS[what]
    ]  # fmt: skip
    missed += [
        f"{row['page']}: {row['change']} {row['seconds']['median']:.2f} s, goal {GOALS['change']} s"
        for row in moved if row["seconds"]["median"] > GOALS["change"]
    ]  # fmt: skip
    if scored["after_upload"]["median"] > GOALS["scoring"]:
        missed.append(f"scoring: {scored['after_upload']['median']:.2f} s, goal {GOALS['scoring']} s")
    return missed


def load_section(rows: list[dict[str, Any]]) -> list[str]:
    yardstick = rows[0]
    note = (
        f"Seconds from the start of the navigation until shown, in warm loads taken in turns: median of "
        f"{yardstick['heading']['count']} [lowest, highest]. Goals: heading and table {GOALS['heading']} s, charts "
        f"{GOALS['charts']} s. The yardstick is a Streamlit page with a heading and one chart; the ratios are to its "
        "heading and its chart. Table: the page's first; last: of all tables, charts, pictures. Pictures of Samples "
        "are drawn live."
    )
    columns = ["page", "tables, charts, pictures", "heading", "ratio", "table", "last table", "last chart", "ratio",
               "last picture"]  # fmt: skip
    cells = [
        [row["page"], ", ".join(str(row["counts"][kind]) for kind in ("table", "chart", "picture")),
         _text(row["heading"]), _ratio(row["heading"], yardstick["heading"]), _text(row["table"]),
         _text(row["last_table"]), _text(row["charts"]), _ratio(row["charts"], yardstick["charts"]),
         _text(row["pictures"])]
        for row in rows
    ]  # fmt: skip
    return record.section("Opening a page", note, columns, cells)


def change_section(rows: list[dict[str, Any]], scored: dict[str, Any]) -> list[str]:
    note = (
        f"Seconds from the click or key until the page shows the new value: median of {rows[0]['seconds']['count']} "
        f"[lowest, highest], goal {GOALS['change']} s; and until the verdicts of {scored['images']} uploaded PNG files "
        f"(validation images) are shown, from the end of the last upload, goal {GOALS['scoring']} s."
    )
    cells = [[row["page"], row["change"], _text(row["seconds"])] for row in rows]
    cells.append(["anomalies", f"{scored['images']} images scored, after the upload", _text(scored["after_upload"])])
    cells.append(["anomalies", "the same with the upload", _text(scored["with_upload"])])
    return record.section("A change", note, ["page", "change", "seconds"], cells)


def _text(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.2f} [{spread['low']:.2f}, {spread['high']:.2f}]"


def _ratio(spread: dict[str, float] | None, yardstick: dict[str, float]) -> str:
    return "" if spread is None else f"{spread['median'] / yardstick['median']:.1f}"


def registered() -> dict[str, str]:
    """architecture -> the name of its latest version on digits; says so where the starter set is not there."""
    found = {v.architecture: f"{v.name}/{v.version}" for v in tracking.list_versions()
             if "latest" in v.aliases and v.dataset == DATASET}  # fmt: skip
    if missing := {"nade", "pixel_cnn", "rbm", "vae"} - set(found):
        raise typer.BadParameter(
            f"not registered: {', '.join(sorted(missing))}; train the starter set with `python -m pipelines starter`"
        )
    return found


def measure(loads: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any], str]:
    """Start both servers and a browser, take all times, end them."""
    models, path = registered(), find_browser()
    if path is None:
        raise typer.BadParameter(ADVICE)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "yardstick.py").write_text(YARDSTICK)
        trivial = stack.enter_context(streamlit(folder / "yardstick.py", 8701, folder))
        address = stack.enter_context(streamlit(record.ROOT / "dashboard" / "app.py", 8751, folder))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=path, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        urls = {"yardstick": trivial, **{page or "compare": f"{address}/{page}" for page in PAGES}}
        opened = measure_loads(context, urls, loads)
        moved = measure_changes(context, address, models, loads)
        scored, version = measure_scoring(context, address, loads), browser.version
        browser.close()
    return opened, moved, scored, version


def main(
    loads: Annotated[int, typer.Option(min=1, help="warm loads of each page, changes of each widget")] = 7,
) -> None:
    """Time every page of the dashboard in a real browser."""
    where = record.circumstances(packages=("streamlit", "plotly", "playwright"))
    opened, moved, scored, version = measure(loads)
    where |= {"browser": f"Chromium {version}", "models": len(tracking.list_versions()), "runs": len(tracking.runs())}
    missed = verdicts(opened, moved, scored)
    lines = record.heading("The dashboard in a browser", COMMAND, where)
    lines += load_section(opened) + change_section(moved, scored)
    lines += ["", "Missed goals:", "", *(f"- {miss}" for miss in missed)] if missed else ["", "Every goal is met."]
    values = {**where, "goals": GOALS, "pages": opened, "changes": moved, "scoring": scored, "missed": missed}
    record.keep("dashboard", lines, values)
    if missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
