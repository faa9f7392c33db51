"""What becomes of a trained model: its evaluation is logged, it is registered, and perhaps champion."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import torch

from gdm_core.contract import GenerativeModel
from gdm_core.data import ImageDataset, Treatment
from gdm_core.health import worst
from gdm_core.storage import save_model
from pipelines import evaluation
from pipelines.registered_model import model_name
from pipelines.tracker import OFFLINE_VERSION, Tracker


def weights_digest(model: GenerativeModel) -> str:
    """sha256 over names and bytes of all weights: equal digests, equal models."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def log_evaluation(
    tracker: Tracker, evaluated: evaluation.Evaluation, facts: dict[str, float], digest: str
) -> None:
    """Write what was found of a trained model to its run; `facts` are numbers beside the likelihoods."""
    health = worst(evaluated.health)
    tracker.set_tags({"gdm.likelihood_kind": evaluated.kind, "gdm.weights_digest": digest, "gdm.health": health})
    final = {**evaluation.final_metrics(evaluated), **facts}
    tracker.log_metrics(final, step=int(facts["epochs"]))
    tracker.log_json(evaluation.evaluation_record(evaluated, facts), "evaluation.json")
    if evaluated.kind != "none":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "likelihood.safetensors"
            evaluation.write_per_image(evaluated, path)
            tracker.log_file(path)


def promote(name: str, version: str) -> tuple[bool, str]:
    """Make a version champion if it deserves it: whether it did, and why."""
    if version == OFFLINE_VERSION:
        return False, "decided when the run is imported"
    from pipelines.promotion import promote_if_better

    decision = promote_if_better(name, version)
    return decision.promoted, decision.reason


def register(
    model: GenerativeModel, dataset: ImageDataset, treatment: Treatment, evaluated: evaluation.Evaluation,
    tracker: Tracker,
) -> tuple[str, str]:  # fmt: skip
    """Make the model a version of its registered model: (name, version)."""
    name = model_name(dataset.name, model.name)
    about = {
        "name": dataset.name,
        "digest": dataset.digest,
        "levels": dataset.levels,
        "specification": dataset.specification,
        "class_names": list(dataset.class_names),
    }
    with tempfile.TemporaryDirectory() as folder:
        save_model(
            model, folder, dataset=about, treatment=treatment, calibration=evaluated.calibration.to_tensors(),
            extra={"run_id": tracker.run_id},
        )  # fmt: skip
        return name, tracker.register(folder, name, {"gdm.likelihood_kind": evaluated.kind})
