"""The energy of models that only know a bound on it: the score, what it is below, and that an image's is its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gdm_core.models  # noqa: F401  (registers every model)
from gdm_core.anomaly import auroc, calibrate, get_scorer, p_values, score_images, scorers_for
from gdm_core.contract import Energy, GenerativeModel, has
from gdm_core.energies import energy_or_bound, has_energy, name_energy
from gdm_core.models.energy.learning.greedy_layers import turn_upside_down
from gdm_core.registry import build_model, list_models, model_class
from tests.autoregressive_cases import all_images
from tests.test_dbm import log_prob as log_prob_of_dbm
from tests.test_dbn import enumerated as log_prob_of_dbn
from tests.test_energy_gradient import BOUNDS, drawn

SHAPE = (1, 2, 2)


def free_energy(model: GenerativeModel) -> Tensor:
    """-log p(x) - log Z of all images, by enumeration of everything."""
    log_prob = log_prob_of_dbn(model) if model.name == "dbn" else log_prob_of_dbm(model)
    return -(log_prob + model.exact_log_partition()).double()


def machine(name: str, **arguments: object) -> GenerativeModel:
    torch.manual_seed(4)
    model = build_model(name, SHAPE, **{"hidden_units": (3, 2), **arguments}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def test_who_has_an_energy_or_a_bound_on_it() -> None:
    kinds = [model_class(name) for name in list_models()]
    able = {kind.name for kind in kinds if has_energy(kind)}
    assert able == {kind.name for kind in kinds if has(kind, Energy)} | set(BOUNDS)
    for kind in kinds:
        assert ("energy" in [entry.name for entry in scorers_for(kind)]) == (kind.name in able)
    assert name_energy("energy", model_class("dbm")) == get_scorer("energy").label_for(model_class("dbn")) == (
        "bound on the free energy"
    )


@torch.no_grad()
@pytest.mark.parametrize("name", BOUNDS)
def test_the_score_lies_above_the_enumerated_free_energy(name: str) -> None:
    model, x = machine(name), all_images(SHAPE).double()
    found, exact = score_images(model, "energy", x), free_energy(model)
    if name == "dbm":
        assert (found > exact - 1e-9).all()
    else:  # above it on average over the noise: by more than 64 guesses can be wrong, averaged over many draws of them
        noises = range(1, 101)
        many = torch.stack([-model.unnormalised_bound(x, 64, torch.Generator().manual_seed(s)) for s in noises])
        assert (many.mean(0) > exact - 1e-9).all()
        assert ((found - many.mean(0)).abs() < 5 * many.std(0) + 1e-9).all()
    assert (found - exact).max() > 0.01  # or nothing was bounded
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.8


@torch.no_grad()
def test_where_the_bound_is_tight_the_score_is_the_free_energy() -> None:
    """A belief network that is one restricted machine, and a deep machine whose hidden units the pixels do not move."""
    network = machine("dbn", hidden_units=(3, 4))
    turn_upside_down(network, 0)
    x = all_images(SHAPE).double()
    torch.testing.assert_close(score_images(network, "energy", x), free_energy(network))
    deep = machine("dbm")
    for weight in deep.weights:
        weight.zero_()
    torch.testing.assert_close(score_images(deep, "energy", x), free_energy(deep))


@pytest.mark.parametrize("name", BOUNDS)
def test_an_image_s_number_is_its_own(name: str) -> None:
    """Alone, in company, on repetition and beside other random draws: bit for bit; and the calibration's."""
    model, x = drawn(name, **BOUNDS[name]).float(), (torch.rand(30, 1, 3, 3) < 0.4).float()
    scores = score_images(model, "energy", x)
    torch.randn(3)
    state = torch.get_rng_state()
    assert torch.equal(score_images(model, "energy", x.flip(0)).flip(0), scores)
    assert torch.equal(score_images(model, "energy", x[4:5]), scores[4:5])
    assert torch.equal(torch.get_rng_state(), state)
    calibration = calibrate(model, x)
    assert torch.equal(calibration.scores_of("energy"), scores)
    p = p_values(scores, calibration.scores_of("energy"))
    assert (p >= 2 / 31 - 1e-12).all() and (p <= 1).all()
    torch.testing.assert_close(energy_or_bound(model, x).double(), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_model_that_knows_its_images_scores_their_inverse_as_stranger(name: str) -> None:
    model = build_model(name, (1, 4, 4), hidden_units=(4, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
        bias = model.machines[0].visible_bias if name == "dbn" else model.biases[0]
        bias.fill_(-1.5)
    x = (torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    assert auroc(score_images(model, "energy", x), score_images(model, "energy", 1 - x)) > 0.95
