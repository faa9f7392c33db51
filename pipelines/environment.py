"""What a run was made with: the commit and the packages."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "scipy", "safetensors", "pillow", "mlflow")


def git_tags() -> dict[str, str]:
    """The commit of the checkout, and whether files in it were changed since; empty where this is no checkout."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    if not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "gdm.git_changed": "yes" if changes else "no"}


def environment() -> dict[str, Any]:
    """Python, system and versions of the direct dependencies, as JSON takes them."""
    return {"python": platform.python_version(), "system": platform.platform(), "packages": package_versions()}


def package_versions(names: Iterable[str] | None = None) -> dict[str, str]:
    """name -> version of those packages that are installed; of the direct dependencies where none are named."""
    found = {name: _version(name) for name in names or direct_dependencies()}
    return {name: version for name, version in found.items() if version is not None}


def direct_dependencies() -> list[str]:
    """The names in requirements.txt, or the main ones where the project is installed without that file."""
    path = PROJECT_ROOT / "requirements.txt"
    if not path.is_file():
        return list(PACKAGES)
    return [match[1] for line in path.read_text().splitlines() if (match := re.match(r"\s*([A-Za-z][\w.-]*)", line))]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git on this machine, or a very slow disk: the run is worth more than its commit
    return result.stdout.strip() if result.returncode == 0 else ""
