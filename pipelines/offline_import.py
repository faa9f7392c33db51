"""Taking in a folder written by `offline.OfflineTracker`: metrics, artifacts, registration, as if logged live.

A run that was taken in carries its offline id and the digest of its lines as tags, so that the same folder, copied and
taken in once more, adds nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from gdm_core.storage import StorageError
from pipelines.offline_events import EVENTS, FILES, read_events
from pipelines.promotion import promote_if_better
from pipelines.run_reader import runs_tagged
from pipelines.run_writer import MlflowTracker
from pipelines.store import client
from pipelines.tracker import RunStatus, StoreError

SOURCE_TAG, DIGEST_TAG = "gdm.source", "gdm.import_digest"


@dataclass
class ImportReport:
    """What `import_directory` did: offline run id -> run id in the store, those that were there, and problems."""

    imported: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)  # offline run id -> (model name, version)
    problems: list[str] = field(default_factory=list)


def import_directory(directory: Path | str) -> ImportReport:
    """Take in every run of a folder written by `OfflineTracker`; what is broken is named, the rest goes on.

    Raises StoreError where the folder holds no runs or the store is down.
    """
    folders = sorted(path.parent for path in Path(directory).glob(f"*/{EVENTS}"))
    if not folders and (Path(directory) / EVENTS).is_file():
        folders = [Path(directory)]
    if not folders:
        raise StoreError(f"{directory} holds no offline runs: name the folder given to `train --offline`")
    report = ImportReport()
    for folder in folders:
        try:
            _import_run(folder, report)
        except (StoreError, ValueError, OverflowError) as error:
            client()  # a store that is down ends the import
            report.problems.append(f"{folder} was left out: {error}")
    return report


def _import_run(folder: Path, report: ImportReport) -> None:
    offline_id = folder.name
    if not re.fullmatch(r"[0-9a-f]{32}", offline_id):
        report.problems.append(f"{folder} is not named by a run id: skipped; give it its old name back")
        return
    text = (folder / EVENTS).read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    events = list(read_events(folder / EVENTS, text, report.problems))
    if not events or events[0]["event"] != "start":
        report.problems.append(f"{folder / EVENTS} does not begin with the start of a run: skipped; copy it again")
        return
    found, complete = _find_imported(offline_id, digest)
    if found and complete:
        report.known[offline_id] = found
        return
    tracker = _open_run(events[0], offline_id, found)
    status, ended = _replay(events, folder, tracker, report)
    tracker.finish(status, ended)
    if offline_id in report.versions:
        promote_if_better(*report.versions[offline_id])
    tracker.set_tags({DIGEST_TAG: digest})
    report.imported[offline_id] = tracker.run_id


def _open_run(start: dict[str, Any], offline_id: str, run_id: str | None) -> MlflowTracker:
    """The run in the store, new or begun by an import that did not come to its end."""
    tracker = MlflowTracker(start["experiment"], start["name"], run_id, system_metrics=False, start_time=start["time"])
    tracker.set_tags({SOURCE_TAG: f"import:{offline_id}"})
    return tracker


def _replay(
    events: list[dict[str, Any]], folder: Path, tracker: MlflowTracker, report: ImportReport
) -> tuple[RunStatus, int]:
    """Log every event; one that cannot be is a problem, the rest goes on. A run without an end was killed."""
    status: RunStatus = "KILLED"
    for event in events[1:]:
        try:
            if event["event"] == "finish":
                status = event["status"] if event["status"] in ("FINISHED", "FAILED", "KILLED") else "KILLED"
            else:
                _log(event, folder, tracker, report)
        except (OSError, ValueError, OverflowError, StoreError, Image.DecompressionBombError) as error:
            client()  # a store that is down ends the import
            report.problems.append(f"{folder}: {event['event']} was left out: {error}")
    return status, events[-1]["time"]


def _log(event: dict[str, Any], folder: Path, tracker: MlflowTracker, report: ImportReport) -> None:
    match event["event"]:
        case "parameters":
            tracker.log_parameters(event["values"])
        case "tags":
            tracker.set_tags({key: value for key, value in event["values"].items() if key != SOURCE_TAG})
        case "metrics":
            tracker.log_metrics(event["values"], event["step"], event["time"])
        case "image":
            with Image.open(_inside(folder, event["file"])) as image:
                image.load()
                tracker.log_image(event["key"], image, event["step"], event["time"])
        case "file":
            tracker.log_file(_inside(folder, event["file"]), event["folder"])
        case "dataset":
            tracker.log_dataset(event["name"], event["digest"], event["splits"], event["source"])
        case "register":
            version = tracker.register(_inside(folder, event["file"]), event["name"], event["tags"])
            report.versions[folder.name] = (event["name"], version)
        case "alias":
            name, version = report.versions.get(folder.name, ("", ""))
            if name != event["name"]:
                raise StoreError(f"{event['name']} is not what this run registered")
            tracker.set_alias(name, event["alias"], version)


def _inside(folder: Path, file: str) -> Path:
    """A file of the run's own folder; a path that climbs out is refused."""
    root = (folder / FILES).resolve()
    path = (root / file).resolve()
    if not path.is_relative_to(root) or not path.exists():
        raise StorageError(f"{file} is not in {root}")
    return path


def _find_imported(offline_id: str, digest: str) -> tuple[str | None, bool]:
    """The run an offline run became, if any, and whether all of these lines were taken in."""
    found = runs_tagged(SOURCE_TAG, f"import:{offline_id}")
    return (found[0].run_id, found[0].tags.get(DIGEST_TAG) == digest) if found else (None, False)
