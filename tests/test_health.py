"""Training health: what is found in models that were made ill on purpose, and nothing in those that are well."""

from __future__ import annotations

import json
import math

import pytest
import torch

from gdm_core.contract import GenerativeModel
from gdm_core.energies import energy_or_bound
from gdm_core.health import IMAGES, Finding, divergence, training_health, worst
from gdm_core.registry import build_model
from tests.autoregressive_cases import all_images


def machine(hidden_units: int = 10) -> GenerativeModel:
    model = build_model("rbm", (1, 3, 3), hidden_units=hidden_units)
    with torch.no_grad():
        model.weight.normal_(std=0.5)
    return model


def found(model: GenerativeModel, train: torch.Tensor | None = None) -> dict[str, Finding]:
    images = all_images((1, 3, 3)).float()
    return {one.name: one for one in training_health(model, images if train is None else train, images)}


def test_a_model_that_is_well_has_nothing_wrong_with_it() -> None:
    findings = found(machine())
    assert len(findings) == 4 and worst(list(findings.values())) == "good"


@pytest.mark.parametrize(("bias", "name", "word"), [(-30, "never", "never fire"), (30, "always", "always fire")])
@pytest.mark.parametrize(("count", "verdict"), [(1, "good"), (3, "watch"), (6, "bad")])
def test_idle_units_are_counted(bias: int, name: str, word: str, count: int, verdict: str) -> None:
    model = machine()
    with torch.no_grad():
        model.hidden_bias[:count] = bias
    finding = found(model)[f"hidden units that {name} fire"]
    assert finding.value == count / 10 and finding.verdict == verdict
    assert f"{count} of 10 hidden units {word}" in finding.sentence


def test_a_unit_that_one_image_switches_on_is_not_idle() -> None:
    model = machine()
    with torch.no_grad():
        model.weight[0] = 20.0
        model.hidden_bias[0] = -170.0  # above 0 only where all nine pixels are on
    images = all_images((1, 3, 3)).float().flip(0)
    findings = {one.name: one for one in training_health(model, images, images)}
    assert findings["hidden units that never fire"].value == 0


def test_a_gap_of_energy_between_the_splits_is_measured_in_nats() -> None:
    model = machine()
    images = all_images((1, 3, 3)).float()
    energy = model.energy(images).detach()
    lowest = energy.argsort()[:100]
    finding = found(model, images[lowest])["energy gap of validation to train"]
    assert finding.value == pytest.approx((energy[:IMAGES].mean() - energy[lowest].mean()).item(), rel=1e-5)
    assert finding.verdict == "bad" and found(model)["energy gap of validation to train"].value == pytest.approx(0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["dbn", "dbm"])
def test_of_a_bound_on_the_energy_the_gap_and_the_chains_are_told(name: str) -> None:
    model, images = build_model(name, (1, 3, 3), hidden_units=(4, 3)), all_images((1, 3, 3)).float()
    for parameter in model.parameters():
        parameter.normal_(std=0.7)
    bound = energy_or_bound(model, images, 8)
    lowest = bound.argsort()[:100]
    findings = found(model, images[lowest])
    gap = findings["energy gap of validation to train"]
    assert gap.value == pytest.approx((bound[:IMAGES].mean() - bound[lowest].mean()).item(), rel=1e-4)
    assert gap.verdict == "bad" and gap.sentence.startswith("The bound on the free energy of ")
    chains = findings["autocorrelation time of the bound on the free energy"]
    assert "forget their bound on the free energy in" in chains.sentence


def test_chains_that_stand_still_are_bad() -> None:
    model = machine(9)
    with torch.no_grad():
        model.weight.copy_(60 * torch.eye(9))
        model.visible_bias.fill_(-30)
        model.hidden_bias.fill_(-30)
    finding = found(model)["autocorrelation time of the energy"]
    assert finding.verdict == "bad" and finding.value > 100
    assert json.loads(json.dumps(finding.to_dict()))["verdict"] == "bad"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["rbm", "gaussian_rbm"])
def test_what_is_no_finite_number_is_bad(name: str, value: float) -> None:
    """Parameters that are broken make broken numbers, none of which is good."""
    model = build_model(name, (1, 3, 3), hidden_units=10)
    with torch.no_grad():
        model.weight.fill_(value)
        model.hidden_bias.fill_(math.nan)
    findings = found(model)
    broken = [finding for finding in findings.values() if not math.isfinite(finding.value)]
    assert len(broken) == len(findings) == 4
    assert {finding.verdict for finding in broken} == {"bad"}


def test_a_run_that_went_back_is_to_be_watched() -> None:
    well, once, twice = divergence(0, 0.1, 0.1), divergence(1, 0.1, 0.05), divergence(2, 0.1, 0.025)
    assert [one.verdict for one in (well, once, twice)] == ["good", "watch", "watch"]
    assert [one.value for one in (well, once, twice)] == [0, 1, 2] and "never diverged" in well.sentence
    assert "diverged once" in once.sentence and "learning rate 0.05 in the place of 0.1 " in once.sentence
    assert "diverged 2 times" in twice.sentence and "learning rate 0.025 " in twice.sentence


def test_an_infinite_value_is_no_number_in_a_file() -> None:
    assert Finding("time", math.inf, "bad", "never").to_dict()["value"] is None


def test_the_gravest_verdict_counts() -> None:
    three = [Finding(str(i), 0.0, verdict, "") for i, verdict in enumerate(("good", "bad", "watch"))]
    assert worst(three) == "bad" and worst(three[:1]) == "good" and worst([]) == ""


def test_the_model_is_left_as_it_was() -> None:
    model = machine().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found(model)
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
