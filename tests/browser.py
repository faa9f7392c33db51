"""A browser for the browser tests: Playwright's own where it is installed, else Debian's Chromium.

`python -m tests.browser` makes sure that there is one: as root it installs Debian's package, otherwise it names the one
command to run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
COMMAND = "apt-get install -y chromium"
ADVICE = f"no browser for the browser tests: run `{COMMAND}` as root"


def find_browser() -> str | None:
    """The path of a browser, or None."""
    return _playwrights_own() or shutil.which("chromium") or shutil.which("chromium-browser")


def _playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def main() -> None:
    """Find a browser or install one."""
    if find_browser():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], env=quiet, check=True)
        return
    raise SystemExit(ADVICE)


if __name__ == "__main__":
    main()
