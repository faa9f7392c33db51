"""Tiny models of digits in a store, for the pages that run models: one of each ability, trained for moments."""

from __future__ import annotations

from pathlib import Path

import torch

import gdm_core.models  # noqa: F401
from gdm_core.anomaly.calibration import calibrate
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.data import ImageDataset, load_dataset, treatment_for
from gdm_core.registry import build_model
from gdm_core.storage import save_model
from pipelines.tracking import MlflowTracker

CALIBRATION_IMAGES = 60
ARGUMENTS = {
    "independent_bernoulli": {},
    "vae": {"hidden_units": 8, "latent_units": 3},
    "dcgan": {"latent_units": 4, "channels": 2},
    "pixel_cnn": {"channels": 4, "blocks": 1},
    "nade": {"hidden_units": 6},
    "rbm": {"hidden_units": 8, "sampling_steps": 20},
    "gaussian_rbm": {"hidden_units": 8, "sampling_steps": 20},
    "helmholtz_machine": {"hidden_units": (30, 5)},
    "label_rbm": {"hidden_units": 12, "sampling_steps": 20},
    "dbm": {"hidden_units": (8, 4), "sampling_steps": 20},
    "deep_energy": {"channels": 2, "steps": 2, "chains": 8, "sampling_steps": 3},
    "mixture_of_bernoullis": {"components": 4},
}


def register_model(
    folder: Path, name: str, with_calibration: bool = True, updates: int = 1, learning_rate: float = 1e-3,
    data: ImageDataset | None = None, **arguments: object,
) -> str:  # fmt: skip
    """Train a tiny model on a few digits, or on `data`, store and register it as digits-NAME; its address."""
    data = data or load_dataset("digits")
    torch.manual_seed(0)
    model = build_model(name, data.data_shape, **ARGUMENTS[name], **arguments)
    treatment = treatment_for(None, data.levels, model.pixels)
    seen = data.splits["train"].take(torch.arange(min(200, len(data.splits["train"]))))
    batch = Batch(treatment(seen.images), seen.labels)
    for phase in model.training_phases(TrainingConfig(epochs=1, learning_rate=learning_rate)):
        for _ in range(updates):
            phase.update(batch)
    images = treatment(data.splits["calibration"].images[:CALIBRATION_IMAGES])
    tensors = calibrate(model.eval(), images).to_tensors() if with_calibration else None
    dataset = {"name": data.name, "digest": data.digest, "levels": data.levels, "specification": data.specification}
    save_model(model, folder / name, dataset=dataset, treatment=treatment, calibration=tensors)
    return _register(folder / name, model.family, name, treatment.label, model.pixels, data.digest)


def _register(folder: Path, family: str, name: str, treatment: str, pixels: str, digest: str) -> str:
    tracker = MlflowTracker("digits", f"tiny {name}", system_metrics=False)
    tracker.log_parameters({"model": name, "seed": 0})
    tracker.set_tags({
        "gdm.model": name, "gdm.family": family, "gdm.dataset": "digits", "gdm.dataset_digest": digest,
        "gdm.treatment": treatment, "gdm.pixels": pixels, "gdm.data_shape": "1x8x8", "gdm.likelihood_kind": "none",
    })  # fmt: skip
    version = tracker.register(folder, f"digits-{name}", {})
    tracker.finish()
    return f"models:/digits-{name}/{version}"
