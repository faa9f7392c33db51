"""When a new version becomes champion: better on validation by more than the paired standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gdm_core.storage import StorageError
from pipelines.registered_model import set_alias
from pipelines.registry_reader import ModelVersion, get_version, list_versions
from pipelines.run_reader import per_image_likelihood

CHAMPION = "champion"
COMPARED = {
    "data set": "dataset_digest",
    "image shape": "data_shape",
    "pixel treatment": "treatment",
    "kind of likelihood": "likelihood_kind",
}


@dataclass(frozen=True)
class Decision:
    """Whether a version became champion, and the sentence that says why."""

    promoted: bool
    reason: str


def promote_if_better(name: str, version: str) -> Decision:
    """Point `champion` at a version, whose run has logged everything, if it deserves it."""
    new = get_version(f"models:/{name}/{version}")
    present = next((v for v in list_versions() if v.name == name and CHAMPION in v.aliases), None)
    decision = decide(new, present)
    if decision.promoted:
        set_alias(name, CHAMPION, version)
    return decision


def decide(new: ModelVersion, present: ModelVersion | None) -> Decision:
    """Compare a version with the present champion, at equal data set, shape, treatment and kind of likelihood."""
    if new.likelihood_kind == "none":
        return Decision(False, "has no likelihood: promote it by hand after looking at its samples")
    if present is None:
        return Decision(True, "first version with a likelihood")
    differing = [word for word, field in COMPARED.items() if getattr(new, field) != getattr(present, field)]
    if differing:
        return Decision(False, f"not comparable with champion {present.version}: {', '.join(differing)} differ")
    try:
        kept = [per_image_likelihood(version.run_id) for version in (new, present)]
    except StorageError as error:
        return Decision(False, f"not comparable with champion {present.version}: {error}")
    if any("validation" not in values for values in kept):
        return Decision(False, f"not comparable with champion {present.version}: per-image values are missing")
    values, old = (torch.as_tensor(values["validation"]) for values in kept)
    if len(old) != len(values):
        return Decision(False, f"not comparable with champion {present.version}: other validation images")
    mean, error = paired_difference(values, old)
    needed = error + _log_z_error(new) + _log_z_error(present)
    sentence = f"{mean:+.3f} nats per image on validation against champion {present.version} (needed > {needed:.3f})"
    return Decision(mean > needed, sentence)


def paired_difference(new: Tensor, old: Tensor) -> tuple[float, float]:
    """Mean of new - old over the same images and its standard error, nats per image."""
    difference = new.double() - old.double()
    return difference.mean().item(), (difference.std() / math.sqrt(len(difference))).item()


def _log_z_error(version: ModelVersion) -> float:
    """Half the interval of an estimated log Z: common to all images, so the paired error does not know of it."""
    log_z = version.log_partition
    return 0.0 if log_z is None else (log_z.high - log_z.low) / 2
