"""A page's background jobs in a real browser, where only the part of the page with the job runs again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.test_browser import MILLISECONDS, ROOT, browser, free_port, wait_for  # noqa: F401
from tests.test_job_panel import script_text

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: run `make install`")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with a job that fails when it is first begun."""
    folder, port = tmp_path_factory.mktemp("jobs"), free_port()
    (folder / "app.py").write_text(script_text())
    command = [
        sys.executable, "-m", "streamlit", "run", str(folder / "app.py"), "--server.headless", "true",
        "--server.address", "127.0.0.1", "--server.port", str(port), "--browser.gatherUsageStats", "false",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_a_failed_job_is_started_again_by_its_button(browser, address) -> None:  # noqa: F811
    page = browser.new_page()
    page.goto(address)
    page.get_by_role("button", name="Start again").click(timeout=MILLISECONDS)
    page.get_by_text("a grid").wait_for(timeout=MILLISECONDS)
    sync_api.expect(page.get_by_role("button", name="Start again")).to_have_count(0)
    page.close()
