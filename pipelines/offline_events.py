"""The events of an offline run: one JSON object a line, in the order of what happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVENTS, FILES = "events.jsonl", "files"
LINE_LIMIT = 2**20  # characters
EVENT_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "start": {"experiment": str, "name": str},
    "parameters": {"values": dict},
    "tags": {"values": dict},
    "metrics": {"values": dict, "step": int},
    "image": {"key": str, "step": int, "file": str},
    "file": {"file": str, "folder": (str, type(None))},
    "dataset": {"name": str, "digest": str, "splits": dict, "source": str},
    "register": {"file": str, "name": str, "tags": dict},
    "alias": {"name": str, "alias": str, "version": str},
    "finish": {"status": str},
}


def read_events(path: Path, text: bytes, problems: list[str]) -> Iterator[dict[str, Any]]:
    """The lines that are events, in order; each other line becomes a sentence."""
    for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
        event = _parse(line)
        if event is None:
            problems.append(f"{path}, line {number} is broken and was left out: copy the folder again if it matters")
        else:
            yield event


def _parse(line: str) -> dict[str, Any] | None:
    """An event, or None where the line is not one."""
    try:
        event = json.loads(line) if len(line) <= LINE_LIMIT else None
    except (ValueError, RecursionError):
        return None
    kinds = EVENT_KEYS.get(event.get("event")) if isinstance(event, dict) else None
    if kinds is None or type(event.get("time")) is not int:
        return None
    fits = all(key in event and isinstance(event[key], kind) for key, kind in kinds.items())
    numbers = event["event"] != "metrics" or all(isinstance(v, int | float) for v in event["values"].values())
    return event if fits and numbers else None


def logged_steps(path: Path) -> set[tuple[str, str, int]]:
    """What a resumed run has logged already."""
    events = list(read_events(path, path.read_bytes(), []))
    images = {("image", event["key"], event["step"]) for event in events if event["event"] == "image"}
    metrics = [event for event in events if event["event"] == "metrics"]
    return images | {("metrics", key, event["step"]) for event in metrics for key in event["values"]}
