"""The gradient of the energy as a heat map: against differences of the energy, formulas, and re-converged bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gdm_core.anomaly import calibrate, map_for, map_images, maps_for
from gdm_core.anomaly.gradient import energy_gradient, gain_of_inverting
from gdm_core.anomaly.maps import reconstruction_error
from gdm_core.contract import Energy, GenerativeModel, UnnormalisedBound, has
from gdm_core.models.energy.learning.greedy_layers import turn_upside_down
from gdm_core.models.energy.partition import tempered_boltzmann_machine
from gdm_core.registry import build_model, list_models, model_class
from tests.contract_cases import SMALL

SHAPE, STEP = (1, 3, 3), 1e-5
ENERGIES = {
    "rbm": {"hidden_units": 5},
    "gaussian_rbm": {"hidden_units": 5},
    "label_rbm": {"hidden_units": 5, "classes": 3},
    "boltzmann_machine": {"hidden_units": 4},
    "deep_energy": {"channels": 4},
}
BOUNDS = {"dbm": {"hidden_units": (4, 3)}, "dbn": {"hidden_units": (4, 3)}}
DEPTHS = pytest.mark.parametrize("hidden_units", [(3, 2), (3, 2, 3), (2, 2, 2, 2)])


def drawn(name: str, shape: tuple[int, int, int] = SHAPE, scale: float = 1.0, **arguments: object) -> GenerativeModel:
    """A model with parameters from a normal distribution, in float64."""
    torch.manual_seed(5)
    model = build_model(name, shape, **arguments).double().eval()
    if name != "deep_energy":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
    return model


def images_for(model: GenerativeModel, n: int = 4) -> Tensor:
    noise = torch.rand(n, *model.data_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return noise if model.pixels == "real" else noise.round()


@torch.no_grad()
def differences(model: GenerativeModel, energy, x: Tensor) -> Tensor:
    """dF/dx by central differences, of the shape of x; images between 0 and 1 are let through."""
    model.check_images = lambda x: x
    steps = STEP * torch.eye(model.dimensions, dtype=x.dtype).view(-1, *model.data_shape)
    rows = [(energy(image + steps) - energy(image - steps)) / (2 * STEP) for image in x]
    del model.check_images
    return torch.stack(rows).view_as(x)


def test_every_model_with_an_energy_or_a_bound_is_tried_here() -> None:
    able = {name for name in list_models() if has(model_class(name), Energy)}
    assert able == set(ENERGIES)
    assert {name for name in list_models() if has(model_class(name), UnnormalisedBound)} == set(BOUNDS)


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("shape", [SHAPE, (3, 2, 3)], ids=["grey", "colour"])
def test_the_gradient_is_the_limit_of_differences(name: str, shape: tuple[int, int, int]) -> None:
    model = drawn(name, shape, **ENERGIES[name])
    x = images_for(model)
    expected = differences(model, model.energy, x)
    torch.testing.assert_close(energy_gradient(model, x), expected, atol=1e-5, rtol=1e-5)
    gain = ((2 * x - 1) * expected).sum(1)
    torch.testing.assert_close(gain_of_inverting(model, x), gain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_gradients_are_their_formulas() -> None:
    rbm = drawn("rbm", **ENERGIES["rbm"])
    v = images_for(rbm).flatten(1)
    expected = -rbm.visible_bias - torch.sigmoid(rbm.hidden_bias + v @ rbm.weight.T) @ rbm.weight
    torch.testing.assert_close(energy_gradient(rbm, v.view(-1, *SHAPE)).flatten(1), expected)
    labels = drawn("label_rbm", **ENERGIES["label_rbm"])
    x = images_for(labels)
    expected = -labels.visible_bias - labels.encode(x) @ labels.weight  # the label summed out
    torch.testing.assert_close(energy_gradient(labels, x).flatten(1), expected)
    gaussian = drawn("gaussian_rbm", **ENERGIES["gaussian_rbm"])
    x = images_for(gaussian)
    expected = (x.flatten(1) - gaussian.visible_mean(gaussian.encode(x))) / gaussian.sigma().square()
    torch.testing.assert_close(energy_gradient(gaussian, x).flatten(1), expected)


@torch.no_grad()
def test_without_hidden_units_the_gain_is_that_of_the_flip_and_near_it_with_weak_ones() -> None:
    """log p(x_i | all others) = -softplus(F(x) - F(x, i flipped)): what the gradient estimates is known exactly."""

    def errors(strength: float) -> Tensor:
        model = drawn("rbm", hidden_units=5)
        model.weight.mul_(strength)
        x = images_for(model)
        exact = model.surprise_map(x).expm1().log()[:, 0]  # the inverse of softplus
        return gain_of_inverting(model, x) - exact

    assert errors(0.0).abs().max() < 1e-12
    small, half = errors(0.1).abs().max(), errors(0.05).abs().max()
    assert 1e-5 < small < 0.1 and small / half == pytest.approx(4, rel=0.1)  # of second order in the weights


@torch.no_grad()
@pytest.mark.parametrize("name", ["rbm", "dbm"])
def test_its_softplus_is_the_reconstruction_error_where_pixels_depend_on_one_layer(name: str) -> None:
    model = drawn(name, **{**ENERGIES, **BOUNDS}[name])
    x = images_for(model)
    gain = torch.nn.functional.softplus(gain_of_inverting(model, x))
    torch.testing.assert_close(gain, reconstruction_error(model, x))


# --- bounds -------------------------------------------------------------------------------------------------------


@DEPTHS
def test_mean_field_s_bound_has_the_slope_of_the_bound_that_is_converged_anew(hidden_units: tuple[int, ...]) -> None:
    """The envelope theorem: where the means maximise the bound, how they move with x plays no part in its slope."""
    model = drawn("dbm", scale=0.8, hidden_units=hidden_units, mean_field_steps=5000, tolerance=1e-14)
    x = images_for(model)
    found = energy_gradient(model, x)
    torch.testing.assert_close(found, -differences(model, lambda x: model.unnormalised_bound(x, 1), x), atol=1e-6,
                               rtol=1e-5)  # fmt: skip
    means = model.mean_field(x.flatten(1))
    torch.testing.assert_close(found.flatten(1), (-model.biases[0] - means[1] @ model.weights[0]).detach())
    model.mean_field_steps = 1  # means that do not maximise the bound: how they move does play a part
    stopped = -differences(model, lambda x: model.unnormalised_bound(x, 1), x)
    assert (energy_gradient(model, x) - stopped).abs().max() > 1e-3


def test_a_belief_network_that_knows_its_posterior_has_the_gradient_of_its_likelihood() -> None:
    """Fisher's identity: with two layers that are one restricted machine, it is the gradient of that free energy."""
    model = drawn("dbn", hidden_units=(4, 9))
    turn_upside_down(model, 0)
    machine = build_model("rbm", SHAPE, hidden_units=4).double()
    with torch.no_grad():
        for parameter, own in zip(machine.parameters(), model.machines[0].parameters(), strict=True):
            parameter.copy_(own)
    x = images_for(model)
    torch.testing.assert_close(energy_gradient(model, x), energy_gradient(machine, x))


def test_a_belief_network_s_gradient_is_the_mean_over_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn("dbn", scale=0.5, **BOUNDS["dbn"])
    x = images_for(model)
    with torch.no_grad():
        guesses = torch.sigmoid(model.recognition_logits(0, x.flatten(1)))
        expected = -model.machines[0].visible_logits(guesses)
    monkeypatch.setattr("gdm_core.energies.GUESSES", 200_000)
    torch.testing.assert_close(energy_gradient(model, x).flatten(1), expected, atol=0.02, rtol=0)


def test_an_annealed_energy_has_the_slope_of_mean_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempered_boltzmann_machine, "MOST_ENUMERATED", 3)
    model = drawn("boltzmann_machine", scale=0.3, **ENERGIES["boltzmann_machine"])
    x = images_for(model)
    v = x.flatten(1)
    with torch.no_grad():
        expected = -model.visible_logits(v, model.hidden_means(v))
        value = model.energy(x)
    torch.testing.assert_close(energy_gradient(model, x).flatten(1), expected)
    assert torch.equal(model.energy(x).detach(), value), "the slope changed the value"
    monkeypatch.setattr(tempered_boltzmann_machine, "MOST_ENUMERATED", 20)
    torch.testing.assert_close(energy_gradient(model, x).flatten(1), expected, atol=0.05, rtol=0)


# --- as one of a model's maps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ENERGIES, *BOUNDS])
def test_a_map_is_an_image_s_own_and_leaves_nothing_behind(name: str) -> None:
    model = build_model(name, SHAPE, **SMALL[name])
    x = images_for(model, 5).float()
    given, gradient = x.clone(), maps_for(model)[-1]
    together = map_images(model, x, gradient)
    assert together.shape == (5, 3, 3) and together.isfinite().all() and not together.requires_grad
    assert torch.equal(torch.cat([map_images(model, one[None], gradient) for one in x]), together)
    assert torch.equal(x, given) and model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    with torch.inference_mode():
        torch.testing.assert_close(gain_of_inverting(model, x).double(), together, atol=1e-5, rtol=1e-5)


def test_models_of_an_energy_have_two_maps_and_the_gradient_is_never_the_first() -> None:
    found = {name: [method.name for method in maps_for(model_class(name))] for name in list_models()}
    assert {name: maps for name, maps in found.items() if "gradient" in maps} == {
        **{name: ["model_surprise", "gradient"] for name in ENERGIES},
        **{name: ["reconstruction_error", "gradient"] for name in BOUNDS},
    }
    assert all(len(maps) == 1 for name, maps in found.items() if name not in {**ENERGIES, **BOUNDS})
    assert all(map_for(model_class(name)).name == maps[0] for name, maps in found.items())


def test_the_gradient_is_called_after_what_it_is_the_gradient_of() -> None:
    kinds = {name: model_class(name) for name in ("rbm", "deep_energy", "dbm")}
    labels = {name: maps_for(kind)[-1].label_for(kind) for name, kind in kinds.items()}
    assert labels == {
        "rbm": "gradient of the free energy", "deep_energy": "gradient of the energy",
        "dbm": "gradient of the bound on the free energy",
    }  # fmt: skip


def test_each_map_has_a_scale_of_its_own() -> None:
    model = drawn("rbm", **ENERGIES["rbm"])
    calibration = calibrate(model, images_for(model, 30))
    first, second = calibration.scaled_maps(model).items()
    assert (first[0].name, second[0].name) == ("model_surprise", "gradient")
    assert first[1] is calibration.map_scale and second[1] is calibration.further_scales["gradient"]
    assert not torch.equal(first[1].threshold, second[1].threshold)
