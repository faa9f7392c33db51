"""One training run from configuration to registered model: train, log, checkpoint, evaluate, calibrate, register."""

from __future__ import annotations

import contextlib
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gdm_core.contract import DivergenceError, GenerativeModel
from gdm_core.data import ImageDataset, Treatment
from gdm_core.registry import build_model
from pipelines import evaluation
from pipelines.checkpoints import Checkpoint, checkpoint_folder, resume_command
from pipelines.configuration import RunConfiguration, check_device, reload, treatment_of
from pipelines.rollback import Watcher, train_going_back
from pipelines.run_outcome import log_evaluation, promote, register, weights_digest
from pipelines.tracker import StoreError, Tracker


@dataclass(frozen=True)
class RunResult:
    """What came of a run."""

    run_id: str
    name: str  # of the registered model
    version: str
    evaluation: evaluation.Evaluation
    promoted: bool
    decision: str  # why, in a sentence
    weights_digest: str
    training_seconds: float


def start_run(
    configuration: RunConfiguration, dataset: ImageDataset | None = None, *, offline: Path | None = None,
    checkpoint_seconds: float = 10.0, watch: Watcher | None = None, announce: Callable[[str], None] = print,
) -> RunResult:  # fmt: skip
    """Train a new run to its end. `watch` sees every step; `offline` writes to a folder instead of the store."""
    check_device(configuration)
    dataset = dataset or reload(configuration)
    tracker = open_tracker(configuration, dataset, offline)
    checkpoint = Checkpoint(checkpoint_folder(tracker.run_id, offline), checkpoint_seconds)
    announce(f"run {tracker.run_id}")
    go_on = resume_command(tracker.run_id, offline)
    return _guarded(configuration, dataset, tracker, checkpoint, watch, announce, go_on)


def repeat_run(run_id: str, device: str | None = None, **options: Any) -> RunResult:
    """A new run of what another one was asked for, on the same images; `options` are those of `start_run`.

    Raises DataError where the images have changed since, ValueError where the device is not here.
    """
    from pipelines.run_reader import get_run, read_file

    configuration = RunConfiguration.from_json(read_file(run_id, "configuration.json").decode())
    configuration = configuration if device is None else configuration.on(device)
    return start_run(configuration, reload(configuration, get_run(run_id).tags.get("gdm.dataset_digest")), **options)


def resume_run(
    run_id: str, *, offline: Path | None = None, checkpoint_seconds: float = 10.0, watch: Watcher | None = None,
    announce: Callable[[str], None] = print,
) -> RunResult:  # fmt: skip
    """Go on with a run that was killed or failed, from its last checkpoint, as if it had never stopped."""
    checkpoint = Checkpoint(checkpoint_folder(run_id, offline), checkpoint_seconds)
    configuration = RunConfiguration.from_json(checkpoint.configuration())
    check_device(configuration)
    dataset = reload(configuration)
    tracker = open_tracker(configuration, dataset, offline, run_id)
    announce(f"resuming run {run_id}")
    return _guarded(configuration, dataset, tracker, checkpoint, watch, announce, resume_command(run_id, offline))


def open_tracker(
    configuration: RunConfiguration, dataset: ImageDataset, offline: Path | None, run_id: str | None = None
) -> Tracker:
    """A new run (or the same one taken up again), with everything known before the first step written to it."""
    name = f"{configuration.model} on {dataset.name}"
    if offline is not None:
        from pipelines.offline import OfflineTracker

        tracker: Tracker = OfflineTracker(offline, dataset.name, name, run_id)
    else:
        from pipelines.run_writer import MlflowTracker

        tracker = MlflowTracker(dataset.name, name, run_id)
    if run_id is None:
        tracker.log_parameters(configuration.parameters())
        tracker.log_dataset(dataset.name, dataset.digest, dataset.counts, str(dataset.specification.get("name")))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "configuration.json"
            path.write_text(configuration.to_json())
            tracker.log_file(path)
    return tracker


def _guarded(
    configuration: RunConfiguration, dataset: ImageDataset, tracker: Tracker, checkpoint: Checkpoint,
    watch: Watcher | None, announce: Callable[[str], None], go_on: str,
) -> RunResult:  # fmt: skip
    """Run to the end; whatever stops it marks the run and is raised again."""
    try:
        checkpoint.begin(configuration.to_json())
        result = _run(configuration, dataset, tracker, checkpoint, watch, announce)
        tracker.finish("FINISHED")
    except KeyboardInterrupt:
        announce(f"`{go_on}` goes on from the last checkpoint")
        with _marking(announce):
            tracker.finish("KILLED")
        raise
    except Exception as error:
        if isinstance(error, StoreError):
            announce(f"`{go_on}` goes on from the last checkpoint")
        _log_failure(tracker, error, announce)
        raise
    checkpoint.remove()
    return result


@contextlib.contextmanager
def _marking(announce: Callable[[str], None]) -> Iterator[None]:
    """While a run is told what stopped it: a store or a disk that does not take that either must not hide it."""
    try:
        yield
    except (StoreError, OSError) as refused:
        announce(f"what stopped the run could not be written to it: {refused}")


def _log_failure(tracker: Tracker, error: Exception, announce: Callable[[str], None]) -> None:
    """Its traceback; and a verdict on its health, where learning diverged too often for an evaluation to make one."""
    with _marking(announce), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traceback.txt"
        path.write_text(traceback.format_exc())
        tracker.log_file(path)
    if isinstance(error, DivergenceError):
        with _marking(announce):
            tracker.set_tags({"gdm.health": "bad"})
    with _marking(announce):
        tracker.finish("FAILED")


def _run(
    configuration: RunConfiguration, dataset: ImageDataset, tracker: Tracker, checkpoint: Checkpoint,
    watch: Watcher | None, announce: Callable[[str], None],
) -> RunResult:  # fmt: skip
    config, treatment = configuration.config, treatment_of(configuration)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    model = build_model(configuration.model, dataset.data_shape, **configuration.arguments).to(config.device)
    tracker.set_tags(_tags(model, dataset, treatment))
    resume = _load_state(checkpoint, dataset)
    seconds, divergence = train_going_back(
        model, dataset, treatment, config, tracker, checkpoint, watch, announce, resume
    )
    digest = weights_digest(model)
    evaluated = evaluation.evaluate(model.to("cpu"), dataset, treatment, announce, [divergence])
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_seconds": seconds,
        "epochs": config.epochs,
    }
    log_evaluation(tracker, evaluated, facts, digest)
    name, version = register(model, dataset, treatment, evaluated, tracker)
    promoted, decision = promote(name, version)
    return RunResult(tracker.run_id, name, version, evaluated, promoted, decision, digest, seconds)


def _load_state(checkpoint: Checkpoint, dataset: ImageDataset) -> dict[str, Any] | None:
    state = checkpoint.load()
    if state is not None and state["data"] != dataset.digest:
        raise ValueError(
            f"data set {dataset.name} has changed since the run was stopped (digest {state['data']}, now "
            f"{dataset.digest}): put the old files back, or start a new run"
        )
    return state


def _tags(model: GenerativeModel, dataset: ImageDataset, treatment: Treatment) -> dict[str, str]:
    return {
        "gdm.model": model.name,
        "gdm.family": model.family,
        "gdm.dataset": dataset.name,
        "gdm.dataset_digest": dataset.digest,
        "gdm.treatment": treatment.label,
        "gdm.pixels": treatment.pixels,
        "gdm.data_shape": "x".join(map(str, dataset.data_shape)),
        "gdm.source": "live",
        "gdm.started": str(int(time.time())),
    }
