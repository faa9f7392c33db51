"""What benchmarks share: where and when they ran, spreads, tables, and the two files each leaves in benchmarks/results.

Importing this makes the project importable, so that `python benchmarks/NAME.py` runs from a bare checkout too.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def circumstances(device: str = "cpu", packages: Sequence[str] = ("torch",)) -> dict[str, Any]:
    """When, on which commit and on which machine: what every number here has to be read with."""
    from pipelines.environment import package_versions

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "device": _processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": f"{os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
        **package_versions(packages),
    }


def heading(title: str, command: str, where: dict[str, Any]) -> list[str]:
    """The first lines of a report: what made it, when and where."""
    made = ", ".join(f"{key} {value}" for key, value in where.items())
    return [f"# {title}", "", f"Made by `{command}`: {made}.", ""]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, a line each."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def section(title: str, note: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading, a paragraph that says what the numbers are, and their table."""
    return ["", f"## {title}", "", note, "", *table(columns, rows)]


def keep(name: str, lines: Sequence[str], values: dict[str, Any], folder: Path = RESULTS) -> None:
    """Print the report and write it as NAME.md, with the same numbers as NAME.json beside it."""
    write(name, lines, values, folder)
    print("\n".join(lines))


def write(name: str, lines: Sequence[str], values: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write the report as NAME.md, with the same numbers as NAME.json beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """What NAME.json holds; nothing where there is none yet."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def with_row(rows: Sequence[dict[str, Any]], row: dict[str, Any], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows with this one in the place of the one that is equal to it in the keys; the others as they were."""
    return [*(one for one in rows if any(one[key] != row[key] for key in keys)), row]


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, lowest and highest of repeated measurements; None where there are none."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)} if values else None


def spread_text(found: dict[str, float] | None, scale: float) -> str:
    """A spread, times `scale`, in three digits: median [lowest, highest]."""
    if found is None:
        return ""
    median, low, high = (_number(scale * found[key]) for key in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def size_text(data_shape: Sequence[int]) -> str:
    """Height and width of images (C, H, W): 28x28."""
    return "x".join(map(str, data_shape[1:]))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def commit(checkout: Path = ROOT) -> str:
    """The short commit of a checkout, with a + where files other than these results were changed since."""
    top = _git(checkout, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != checkout.resolve():
        return "unknown"  # a folder without git, which may lie in another checkout
    found = _git(checkout, "rev-parse", "--short", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return found + ("+" if changes else "")


def _git(checkout: Path, *arguments: str) -> str:
    try:
        command = ["git", *arguments]
        result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git here: the numbers are worth more than their commit
    return result.stdout.strip() if result.returncode == 0 else ""


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({names[0] if names else platform.machine()})"
