"""How quickly the dashboard answers in a real browser, over the models and runs of the current store.

    python benchmarks/dashboard.py [--loads 7]       about three minutes; wants a quiet machine

Prints benchmarks/results/dashboard.md and writes it, with the same numbers as dashboard.json beside it. It starts a
dashboard of its own, and a trivial Streamlit page with one chart as this machine's yardstick, opens both in Chromium in
turns, and ends both. All times are taken inside the browser, frame by frame. The exit status is 1 where a goal is
missed.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import record
import typer
from browser_clock import install, load_times, settled_counts, until_shown, until_shown_after_upload
from PIL import Image
from playwright.sync_api import BrowserContext, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from gdm_core.data import load_dataset
from pipelines import tracking
from pipelines.serve import HOST, QUIET, Service, free_port
from pipelines.starter import DATASET
from tests.browser import ADVICE, ARGUMENTS, find_browser

COMMAND = "python benchmarks/dashboard.py"
GOALS = {"heading": 1.0, "table": 1.0, "charts": 2.5, "change": 0.3, "scoring": 1.0}  # seconds, medians
PAGES = ("", "samples", "interpolate", "anomalies", "runs", "model")  # addresses; the first is Compare
UPLOADS = 100
WARM_LOADS = 2
START_SECONDS = 90
TRIES, SCROLL_MILLISECONDS, OPEN_MILLISECONDS = 5, 300, 3000  # of opening a select box
YARDSTICK = """
import plotly.graph_objects as go
import streamlit as st

st.title("Yardstick")
st.plotly_chart(go.Figure(go.Scatter(x=[1, 2, 3], y=[1, 3, 2])))
"""


@dataclass(frozen=True)
class Change:
    """A widget moved to and fro between two values, and what the page shows for each: an element and text in it."""

    page: str
    label: str
    name: str  # what it is called in the table
    act: Callable[[Page, str, str], None]  # (page, label, value)
    values: tuple[str, str]
    shown: tuple[tuple[str, str], tuple[str, str]]


def choose(page: Page, label: str, value: str) -> None:
    """Pick an option of a select box; its list closes when the page moves under it, and is opened again then."""
    box = page.get_by_role("combobox", name=label, exact=True)
    option = page.get_by_role("option", name=value, exact=True)
    for _ in range(TRIES):
        box.scroll_into_view_if_needed()
        page.wait_for_timeout(SCROLL_MILLISECONDS)
        box.click()
        try:
            option.click(timeout=OPEN_MILLISECONDS)
            return
        except PlaywrightTimeout:
            page.keyboard.press("Escape")
    raise RuntimeError(f"no option {value!r} could be picked under {label!r} on {page.url}")


def type_number(page: Page, label: str, value: str) -> None:
    field = page.get_by_role("spinbutton", name=label)
    field.fill(value)
    field.press("Enter")


def slide(page: Page, label: str, value: str) -> None:
    page.get_by_role("slider", name=label).press(value)


def changes(models: dict[str, str]) -> list[Change]:
    """One or two widgets of every page; `models` maps an architecture to the name pickers show."""
    rbm, nade, cnn = (models[name] for name in ("rbm", "nade", "pixel_cnn"))
    parts, metrics = ("train/kl", "train/reconstruction"), ("train/loss", "validation/log_likelihood")
    curves, caption = ".ytitle", "[data-testid=stCaptionContainer]"
    return [
        Change("", "Second", "second model", choose, (nade, cnn),
               (("[data-testid=stMetric]", f"minus {nade}"), ("[data-testid=stMetric]", f"minus {cnn}"))),
        Change("", "Metric", "metric of the curves", choose, parts, ((curves, parts[0]), (curves, parts[1]))),
        Change("samples", "Images", "number of images, drawn anew", type_number, ("9", "16"),
               (("img[alt^='9 samples']", ""), ("img[alt^='16 samples']", ""))),
        Change("interpolate", "Steps", "steps", slide, ("ArrowRight", "ArrowLeft"),
               (("img[alt$='of 11']", ""), ("img[alt$='of 10']", ""))),
        Change("anomalies", "False-alarm rate", "false-alarm rate", type_number, ("10", "5"),
               ((caption, "rate 10.00%"), (caption, "rate 5.00%"))),
        Change("runs", "Metric", "metric of the curves", choose, metrics, ((curves, metrics[0]), (curves, metrics[1]))),
        Change("model", "Model", "model", choose, (rbm, nade), ((caption, "rbm ·"), (caption, "nade ·"))),
    ]  # fmt: skip


def uploads() -> list[dict[str, Any]]:
    """The first 100 validation images as PNG files in memory."""
    data = load_dataset(DATASET)
    files = []
    for index, image in enumerate(data.splits["validation"].images[:UPLOADS, 0]):
        buffer, grey = io.BytesIO(), (image.float() * 255 / (data.levels - 1)).round().byte()
        Image.fromarray(grey.numpy()).save(buffer, "PNG")
        files.append({"name": f"digit-{index}.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    return files


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


def new_page(context: BrowserContext) -> Page:
    page = context.new_page()
    install(page)
    return page


def measure_loads(context: BrowserContext, urls: dict[str, str], loads: int) -> list[dict[str, Any]]:
    """A row for each page and the yardstick: seconds to its heading, its first and its last table, its last chart."""
    page, counts = new_page(context), {}
    for name, url in urls.items():
        for _ in range(WARM_LOADS):
            page.goto(url)
            counts[name] = settled_counts(page)
    found: dict[str, list] = {name: [] for name in urls}
    for _ in range(loads):
        for name, url in urls.items():
            found[name].append(load_times(page, url, counts[name]))
            settled_counts(page)  # what one page still does must not slow the next one down
    page.close()
    return [_load_row(name, counts[name], times) for name, times in found.items()]


def _load_row(name: str, counts: dict[str, int], loads: list[dict[str, list[float]]]) -> dict[str, Any]:
    def spread(kind: str, place: int) -> dict[str, float] | None:
        return _spread([times[kind][place] for times in loads]) if counts[kind] else None

    return {
        "page": name, "counts": counts, "heading": spread("heading", 0), "table": spread("table", 0),
        "last_table": spread("table", -1), "charts": spread("chart", -1), "pictures": spread("picture", -1),
    }  # fmt: skip


def measure_changes(context: BrowserContext, address: str, models: dict[str, str], times: int) -> list[dict[str, Any]]:
    """Seconds from the last click or key to what the page shows of it, after one change each way as warm-up."""
    return [_measure_change(new_page(context), address, change, times) for change in changes(models)]


def _measure_change(page: Page, address: str, change: Change, times: int) -> dict[str, Any]:
    page.goto(f"{address}/{change.page}")
    settled_counts(page)
    for value in change.values:  # warm-up, both ways
        change.act(page, change.label, value)
        settled_counts(page)
    seconds = []
    for place in itertools.islice(itertools.cycle((0, 1)), times):
        act = partial(change.act, page, change.label, change.values[place])
        seconds.append(until_shown(page, act, *change.shown[place]))
        settled_counts(page)
    page.close()
    return {"page": change.page or "compare", "change": change.name, "seconds": _spread(seconds)}


def measure_scoring(context: BrowserContext, address: str, loads: int) -> dict[str, Any]:
    """Seconds from the last upload's end, and from the first one's start, to the verdicts of 100 images."""
    files, found = uploads(), []
    for _ in range(loads + 1):
        page = new_page(context)
        page.goto(f"{address}/anomalies")
        settled_counts(page)
        field = page.locator("input[type=file]").first
        found.append(until_shown_after_upload(
            page, partial(field.set_input_files, files), "h3", f"of {len(files)} images flagged"
        ))  # fmt: skip
        page.close()
    after, whole = zip(*found[1:], strict=True)
    return {"images": len(files), "after_upload": _spread(list(after)), "with_upload": _spread(list(whole))}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "count": len(values)}


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
