"""What README and docs say is there is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.cli import app
from pipelines.report import markdown_model_table

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_models_is_the_registry_s() -> None:
    table = re.search(r"<!-- models:.*?-->\n(.*?)\n<!-- /models -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert table and table[1] == markdown_model_table()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"python -m pipelines (\w+)", page.read_text()))
    assert named <= known, named - known
    targets = set(re.findall(r"^ {4}make (\w+)", page.read_text(), re.MULTILINE))
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
