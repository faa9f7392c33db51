"""Training health: what went wrong with a model, each as a number with a verdict; told from the model and its data, and
of divergence from the run.

- Learning that diverged and went back has ended well, at a lower learning rate than it was asked for.
- Hidden units that never fire or always fire do nothing: they pass no image on.
- An energy, or the bound on it that a model knows, that is lower on training images than on validation images says by
  how many nats the model overfits.
- Chains that forget slowly mix badly: samples and the negative phase of learning then see a part of the model only.
- Chains that saturate, which drive pixels to 0 or 1 where the data has greys, have left the data altogether.

Thresholds are rules of thumb and are stated with each verdict. Reference for units, energies and chains:
"A Practical Guide to Training Restricted Boltzmann Machines" (Hinton, 2010), sections 5, 6 and 12.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gdm_core.chain_statistics import autocorrelation_time
from gdm_core.contract import GenerativeModel, HiddenLayers, RunsChains, has
from gdm_core.energies import FEW_GUESSES, energy_or_bound, has_energy, what_is_low
from gdm_core.randomness import seeded_generator

VERDICTS = ("good", "watch", "bad")
IMAGES, CHAINS, STEPS = 500, 32, 200
SILENT = 0.05  # a unit whose activation stays below this on every image never fires; above 0.95 it always does
IDLE_SHARES = (0.2, 0.5)  # of all hidden units: from here on to be watched, and bad
GAP_ERRORS, GAP_SHARE = 3.0, 0.05  # an energy gap to be watched, in standard errors; and bad, in nats per pixel
SLOW_TIMES = (20.0, 100.0)  # autocorrelation times in steps
EDGE = 1e-3
EDGE_EXCESS = (0.2, 0.5)  # share of saturated pixels beyond that of the data


@dataclass(frozen=True)
class Finding:
    """One number and what it means: `verdict` is good, watch or bad."""

    name: str
    value: float
    verdict: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; an infinite value is None."""
        value = self.value if math.isfinite(self.value) else None
        return {"name": self.name, "value": value, "verdict": self.verdict, "sentence": self.sentence}


def worst(findings: list[Finding]) -> str:
    """The gravest verdict; empty where nothing was looked at."""
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default="")


def divergence(rollbacks: int, first_rate: float, last_rate: float) -> Finding:
    """How often a run that has ended well diverged and went back, from its first learning rate to its last."""
    if rollbacks == 0:
        return Finding("divergence", 0.0, "good", "Learning never diverged (to be watched from the first time).")
    times = f"{rollbacks} times" if rollbacks > 1 else "once"
    return Finding(
        "divergence", float(rollbacks), "watch",
        f"Learning diverged {times}: the run went back and went on at learning rate {last_rate:.4g} in the place of "
        f"{first_rate:.4g} (to be watched from the first time).",
    )  # fmt: skip


@torch.no_grad()
def training_health(model: GenerativeModel, train: Tensor, validation: Tensor, seed: int = 0) -> list[Finding]:
    """What can be said of a trained model from images (N, C, H, W) of either split; its state is not changed."""
    training = model.training
    train, validation = train[:IMAGES].to(model.device), validation[:IMAGES].to(model.device)
    model.eval()
    try:
        findings = []
        if has(model, HiddenLayers):
            findings += _hidden_units(model, validation)
        if has_energy(model):
            findings.append(_energy_gap(model, train, validation))
        if has(model, RunsChains):
            findings += _chains(model, validation, seed)
        return findings
    finally:
        model.train(training)


def _hidden_units(model: GenerativeModel, images: Tensor) -> Iterator[Finding]:
    layers = model.hidden_layers(images)
    never = sum(int((layer.max(0).values < SILENT).sum()) for layer in layers)
    always = sum(int((layer.min(0).values > 1 - SILENT).sum()) for layer in layers)
    units = sum(layer.shape[1] for layer in layers)
    finite = all(bool(torch.isfinite(layer).all()) for layer in layers)
    for name, count, words in (("never fire", never, "never fires"), ("always fire", always, "always fires")):
        share = count / units if finite else math.nan
        yield Finding(
            f"hidden units that {name}", share, _grade(share, IDLE_SHARES),
            f"{count} of {units} hidden units {name if count != 1 else words} on {len(images)} validation images"
            f"{'' if finite else ', and activations that are NaN or infinite'} "
            f"(to be watched from {IDLE_SHARES[0]:.0%}, bad from {IDLE_SHARES[1]:.0%}).",
        )  # fmt: skip


def _energy_gap(model: GenerativeModel, train: Tensor, validation: Tensor) -> Finding:
    on_train, on_validation = (energy_or_bound(model, x, FEW_GUESSES).double() for x in (train, validation))
    gap = (on_validation.mean() - on_train.mean()).item()
    error = math.sqrt(on_train.var().item() / len(train) + on_validation.var().item() / len(validation))
    limits = GAP_ERRORS * error, max(GAP_ERRORS * error, GAP_SHARE * model.dimensions)
    return Finding(
        "energy gap of validation to train", gap, _grade(gap, limits),
        f"The {what_is_low(model)} of {len(validation)} validation images lies {gap:.2f} nats above that of "
        f"{len(train)} training images, standard error {error:.2f}: so much does the model overfit (to be watched from "
        f"{limits[0]:.1f}, bad from {limits[1]:.1f}).",
    )  # fmt: skip


def _chains(model: GenerativeModel, images: Tensor, seed: int) -> Iterator[Finding]:
    start = images[:CHAINS]
    steps = list(itertools.islice(model.chain_steps(start, generator=seeded_generator(seed, "health")), STEPS))
    what = what_is_low(model) if has_energy(model) else "brightness"
    if not all(bool(torch.isfinite(x).all()) for x in steps):
        sentence = f"{len(start)} chains from validation images run to pixels that are NaN or infinite."
        yield Finding(f"autocorrelation time of the {what}", math.nan, "bad", sentence)
        return
    values = [energy_or_bound(model, x, FEW_GUESSES) if has_energy(model) else x.flatten(1).mean(1) for x in steps]
    time = autocorrelation_time(torch.stack(values))
    least = "at least " if time > STEPS / 20 else ""
    yield Finding(
        f"autocorrelation time of the {what}", time, _grade(time, SLOW_TIMES),
        f"{len(start)} chains from validation images forget their {what} in {least}{time:.1f} steps "
        f"(to be watched from {SLOW_TIMES[0]:.0f}, bad from {SLOW_TIMES[1]:.0f}).",
    )  # fmt: skip
    if model.pixels != "binary":
        excess = _at_the_edge(steps[-1]) - _at_the_edge(images)
        yield Finding(
            "saturated pixels beyond those of the data", excess, _grade(excess, EDGE_EXCESS),
            f"After {STEPS} steps {_at_the_edge(steps[-1]):.0%} of the chains' pixels are at 0 or 1, and "
            f"{_at_the_edge(images):.0%} of the data's (to be watched from {EDGE_EXCESS[0]:.0%} more, bad from "
            f"{EDGE_EXCESS[1]:.0%}).",
        )  # fmt: skip


def _at_the_edge(x: Tensor) -> float:
    return ((x < EDGE) | (x > 1 - EDGE)).double().mean().item()


def _grade(value: float, limits: tuple[float, float]) -> str:
    """What is no finite number is never good."""
    return VERDICTS[sum(value >= limit for limit in limits)] if math.isfinite(value) else "bad"
