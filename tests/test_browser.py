"""A first-time user's way through the dashboard in a real browser: open, compare, sample, interpolate, brush pixels
away and see them filled in, click a map, upload two images, read their verdicts, download the CSV, come back by a link.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gdm_core.anomaly import p_values, score_images
from gdm_core.data import load_dataset, to_picture
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: run `make install`")
pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NO_BROWSER = "no browser to test with: run `playwright install chromium`, or install Debian's package `chromium`"
MILLISECONDS = 30_000
FORBIDDEN_PORTS = {5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6697, 10080}  # Chromium refuses them


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store with four tiny models; {architecture: address}."""
    folder = tmp_path_factory.mktemp("browser")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("nade", "dcgan", "vae", "independent_bernoulli")}


@pytest.fixture(scope="module")
def address(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard, running over that store."""
    port, log = free_port(), tmp_path_factory.mktemp("log") / "dashboard.log"
    command = [
        sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless", "true",
        "--server.address", "127.0.0.1", "--server.port", str(port), "--browser.gatherUsageStats", "false",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "NO_COLOR": "1"})
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Playwright's own Chromium where it is installed, else the system's."""
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        system = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        path = own if Path(own).is_file() else system
        if path is None:
            pytest.fail(NO_BROWSER)
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert not problems


def free_port() -> int:
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            if free.getsockname()[1] not in FORBIDDEN_PORTS:
                return free.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the dashboard did not start: {log.read_text()[-2000:]}")


def open_page(page, title: str) -> None:
    """Follow the navigation to a page."""
    page.get_by_role("link", name=title, exact=True).click()
    page.get_by_role("heading", name=title, level=1).wait_for()


def settled(page) -> None:
    """No script runs any more, and nothing went wrong on the page."""
    app = page.get_by_test_id("stApp")
    sync_api.expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=MILLISECONDS)
    assert not page.get_by_test_id("stException").count()
    assert not [alert.inner_text() for alert in page.get_by_test_id("stAlertContentError").all()]


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    to_picture(image.double() / 16).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_way_through(page, models):
    page.get_by_role("heading", name="Compare", level=1).wait_for()
    page.get_by_test_id("stDataFrame").first.wait_for()
    settled(page)

    open_page(page, "Samples")
    grids = page.get_by_test_id("stImage")
    grids.nth(2).wait_for()
    settled(page)
    before = [grids.nth(i).locator("img").get_attribute("src") for i in range(3)]
    page.get_by_role("spinbutton", name="Seed").fill("5")
    page.keyboard.press("Enter")
    sync_api.expect(grids.first.locator("img")).not_to_have_attribute("src", before[0], timeout=MILLISECONDS)
    settled(page)
    assert "seed=5" in page.url
    sharp_edges(page)

    open_page(page, "Interpolate")
    page.locator(".gallery.row").nth(1).wait_for()
    settled(page)
    assert page.locator(".gallery.row").first.locator("img").count() == 10 + 2


def sharp_edges(page) -> None:
    """The first grid on screen is at least as many dots wide as its pixels times eight: it was not blown up."""
    width = page.get_by_test_id("stImage").first.locator("img").evaluate("image => image.naturalWidth")
    assert width >= 6 * 9 * 4


def test_a_brushed_image_is_completed(page):
    open_page(page, "Completion")
    completions = page.locator("img.moving[alt$='by digits-nade/1']")
    completions.nth(7).wait_for()
    settled(page)
    before = completions.first.get_attribute("src")
    canvas, said = page.locator(".brush canvas"), page.locator(".brush .said")
    box = canvas.bounding_box()
    cell = box["width"] / 8
    page.mouse.move(box["x"] + cell / 2, box["y"] + cell / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 3.5 * cell, box["y"] + cell / 2)  # in one leap: the brush leaves no gap
    page.mouse.up()
    page.wait_for_url("**pixels=f0000000ffffffff**")  # four pixels of the first row, and the lower half as before
    sync_api.expect(completions.first).not_to_have_attribute("src", before, timeout=MILLISECONDS)
    settled(page)
    assert "hidden=painted" in page.url and "36 of 64 pixels unknown" in said.inner_text()

    canvas.focus()
    for key in ("ArrowDown", "Space"):  # by keyboard: the brush stands where the mouse left it
        page.keyboard.press(key)
    page.wait_for_url("**pixels=f0100000ffffffff**")
    settled(page)
    page.goto(page.url)
    said.get_by_text("37 of 64 pixels unknown").wait_for()
    completions.nth(7).wait_for()
    settled(page)


def test_a_click_on_the_map_shows_what_was_expected(page):
    open_page(page, "Surprise")
    page.locator(".stPlotlyChart .js-plotly-plot").nth(3).wait_for()
    settled(page)
    box = page.locator(".stPlotlyChart").first.locator(".nsewdrag").bounding_box()
    for row, column in ((2, 5), (6, 1), (6, 1)):  # a second click on a pixel does not take it away
        page.mouse.click(box["x"] + (column + 0.5) * box["width"] / 8, box["y"] + (row + 0.5) * box["height"] / 8)
        page.get_by_text(f"Row {row}, column {column}:").nth(1).wait_for()
        settled(page)
    page.get_by_role("spinbutton", name="Row").fill("7")
    page.keyboard.press("Enter")
    page.get_by_text("Row 7, column 1:").nth(1).wait_for()
    settled(page)
    assert "row=7" in page.url and "column=1" in page.url
    page.goto(page.url)
    page.get_by_text("Row 7, column 1:").nth(1).wait_for()
    settled(page)


def test_uploads_get_verdicts_and_a_csv(page, models, tmp_path):
    normal = load_dataset("digits").splits["test"].images[0]
    odd = torch.randint(0, 17, (1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    open_page(page, "Anomalies")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files([
        {"name": "normal.png", "mimeType": "image/png", "buffer": png(normal)},
        {"name": "odd.png", "mimeType": "image/png", "buffer": png(odd)},
    ])  # fmt: skip
    page.get_by_text("of 2 images flagged").wait_for()
    settled(page)
    cards = page.locator(".gallery .card")
    verdicts = {card.locator(".name").inner_text(): "flagged" in card.get_attribute("class") for card in cards.all()}
    assert verdicts == {"odd.png": True, "normal.png": False}

    with page.expect_download() as download:
        page.get_by_test_id("stDownloadButton").get_by_role("button", name="CSV").click()
    rows = {row["image"]: row for row in csv.DictReader(io.StringIO(Path(download.value.path()).read_text()))}
    registered = tracking.load_registered(rows["odd.png"]["model"])
    scorer = rows["odd.png"]["scorer"]
    scores = score_images(registered.model, scorer, registered.treatment(torch.stack([normal, odd])))
    p = p_values(scores, registered.calibration[f"score.{scorer}"])
    assert [float(rows[name]["p_value"]) for name in ("normal.png", "odd.png")] == p.tolist()
    assert [rows[name]["flagged"] for name in ("normal.png", "odd.png")] == ["not flagged", "flagged"]


def test_a_link_restores_a_view(page, address):
    page.goto(f"{address}/interpolate?between=Random+walk&frames=24&seed=3&models=digits-dcgan/1")
    page.get_by_role("button", name="GIF").wait_for()
    settled(page)
    assert page.get_by_role("spinbutton", name="Seed").input_value() == "3"
    assert page.locator(".gallery img").first.get_attribute("src").startswith("data:image/gif")
