"""Scorers: the right ones for each model, the right numbers, and each image's score its own."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch
from torch import Tensor, nn

import gdm_core.models  # noqa: F401  (registers every model)
from gdm_core.anomaly import (
    Calibration,
    auroc,
    calibrate,
    fit_map_scale,
    get_scorer,
    list_scorers,
    map_images,
    p_values,
    score_images,
    scorers_for,
)
from gdm_core.anomaly.complexity import code_length
from gdm_core.contract import GenerativeModel
from gdm_core.registry import build_model, list_models, model_class

SHAPE = (1, 8, 8)


class Raster(GenerativeModel):
    """A small autoregressive network with drop-out, which must not act while scoring."""

    def __init__(self, data_shape: tuple = SHAPE, pixels: str = "binary", levels: int | None = 2) -> None:
        super().__init__(data_shape, pixels, levels)
        self.layer, self.drop = nn.Linear(self.dimensions, self.dimensions), nn.Dropout(0.5)

    def log_prob_map(self, x: Tensor) -> Tensor:
        weight = self.layer.weight.tril(-1)
        logits = nn.functional.linear(self.drop(x.flatten(1)), weight, self.layer.bias).view(x.shape)
        return -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1, keepdim=True)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_prob_map(x).flatten(1).sum(1)


class Latent(GenerativeModel):
    """p(z) = N(0, 1), x_i given z Bernoulli; q(z | x) is the prior, so that a weight is p(x | z)."""

    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.direction = nn.Parameter(torch.randn(self.dimensions))

    def log_weights(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(k, 1, 1, generator=generator)
        logits = (z * self.direction).expand(-1, len(x), -1)
        target = x.flatten(1).expand_as(logits)
        return -nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)

    def reconstruct(self, x: Tensor) -> Tensor:
        return (self.direction * x.flatten(1).mean(1, keepdim=True)).sigmoid().view(x.shape)


class Quadratic(GenerativeModel):
    """An energy and a critic; batch statistics would tie its images together in training mode."""

    def __init__(self) -> None:
        super().__init__(SHAPE, pixels="real", levels=None)
        self.norm = nn.BatchNorm2d(1)

    def energy(self, x: Tensor) -> Tensor:
        return self.norm(x).square().sum((1, 2, 3))

    def critic(self, x: Tensor) -> Tensor:
        return -self.energy(x)

    def surprise_map(self, x: Tensor) -> Tensor:
        return x.square()

    def reconstruct(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)


MODELS = (Raster, Latent, Quadratic)
PAIRS = [(kind, entry.name) for kind in MODELS for entry in scorers_for(kind)]


def binary_images(n: int, seed: int = 0) -> Tensor:
    return (torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def test_scorers_follow_capabilities() -> None:
    assert {kind.__name__: [name for k, name in PAIRS if k is kind] for kind in MODELS} == {
        "Raster": ["likelihood", "peak", "complexity"],
        "Latent": ["bound", "reconstruction", "peak"],
        "Quadratic": ["energy", "reconstruction", "critic", "peak"],
    }
    assert set(list_scorers()) == {name for _, name in PAIRS}


def test_unknown_and_unfit_scorers_name_what_is_there() -> None:
    with pytest.raises(ValueError, match="unknown scorer 'wrong'; known scorers are bound, complexity"):
        get_scorer("wrong")
    with pytest.raises(ValueError, match="needs Discriminates, which Raster does not have"):
        score_images(Raster(), "critic", binary_images(1))
    with pytest.raises(ValueError, match="binary"):
        score_images(Raster(), "likelihood", binary_images(1) * 0.5)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_score_depends_on_its_image_alone(kind: type, name: str) -> None:
    """Bitwise: alone, in company, in any order, again after other random draws, from a view, in training mode."""
    model, x = kind(), binary_images(23)
    scores = score_images(model, name, x)
    assert scores.shape == (23,) and scores.dtype == torch.float64 and torch.isfinite(scores).all()
    order = torch.randperm(23)
    torch.randn(7)
    before = torch.get_rng_state()
    assert torch.equal(score_images(model, name, x[order]), scores[order])
    assert torch.equal(torch.get_rng_state(), before), "scoring draws from the global random state"
    assert torch.equal(torch.cat([score_images(model, name, x[i : i + 1]) for i in range(23)]), scores)
    assert torch.equal(score_images(model, name, torch.cat([binary_images(5, seed=9), x])[5:]), scores)
    assert model.training, "scoring changed the model's mode"
    assert torch.equal(score_images(model.eval(), name, x), scores)
    assert torch.equal(map_images(model, x[order]), map_images(model, x)[order])


REGISTERED = [(name, entry.name) for name in list_models() for entry in scorers_for(model_class(name))]


def test_every_registered_model_has_a_scorer() -> None:
    assert {name for name, _ in REGISTERED} == set(list_models())


@pytest.mark.parametrize(("name", "scorer"), REGISTERED)
def test_registered_models_score_each_image_by_itself(name: str, scorer: str) -> None:
    model, x = build_model(name, SHAPE), binary_images(7)
    scores = score_images(model, scorer, x)
    assert scores.shape == (7,) and torch.isfinite(scores).all()
    assert torch.equal(score_images(model, scorer, x.flip(0)).flip(0), scores)
    assert torch.equal(score_images(model, scorer, x[3:4]), scores[3:4])
    calibration = calibrate(model, x, [get_scorer(scorer)])
    assert torch.equal(calibration.scores_of(scorer), scores)


def test_scores_are_their_formulas() -> None:
    x = binary_images(5)
    raster, latent, quadratic = Raster().eval(), Latent(), Quadratic().eval()
    assert torch.allclose(score_images(raster, "likelihood", x), -raster.log_prob(x).double())
    assert torch.allclose(score_images(quadratic, "energy", x), quadratic.energy(x).double())
    assert torch.allclose(score_images(quadratic, "critic", x), quadratic.energy(x).double())
    assert torch.allclose(score_images(quadratic, "reconstruction", x), torch.full((5,), 16.0, dtype=torch.float64))
    r = latent.reconstruct(x)
    cross_entropy = nn.functional.binary_cross_entropy(r, x, reduction="none").sum((1, 2, 3)).double()
    assert torch.allclose(score_images(latent, "reconstruction", x), cross_entropy, rtol=1e-5)
    top = map_images(raster, x).flatten(1).sort(descending=True).values[:, :3].mean(1)  # 5 % of 64
    assert torch.allclose(score_images(raster, "peak", x), top)
    complexity = -raster.log_prob(x).double() - code_length(x, 2)
    assert torch.allclose(score_images(raster, "complexity", x), complexity, atol=1e-4)


def test_bound_approaches_the_exact_marginal() -> None:
    model, x = Latent(), binary_images(1)
    model.direction.data.mul_(0.1)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    logits = grid[:, None] * model.direction.double()
    conditional = (x.flatten() * logits - nn.functional.softplus(logits)).sum(1)
    prior = -0.5 * grid.square() - 0.5 * math.log(2 * math.pi)
    exact = -(conditional + prior).logsumexp(0) - math.log(16 / 4000)
    assert score_images(model, "bound", x).item() == pytest.approx(exact.item(), abs=0.5)


def test_code_length_is_that_of_a_prefix_code() -> None:
    """Kraft: over all binary images exp(-length) sums to one, so the lengths are those of a lossless code."""
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(-1, 1, 3, 3)
    assert (-code_length(images, 2)).exp().sum().item() == pytest.approx(1.0, abs=1e-9)
    pairs = torch.tensor(list(itertools.product([0, 1, 2, 3], repeat=4))).view(-1, 1, 2, 2) / 3
    assert (-code_length(pairs, 4)).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_code_length_knows_simple_from_random() -> None:
    flat, stripes = torch.zeros(1, 1, 16, 16), torch.arange(16).remainder(2).float().expand(1, 1, 16, 16)
    noise = torch.rand(1, 1, 16, 16).round()
    assert code_length(flat, 2) < 6
    assert code_length(stripes, 2) < 25
    assert code_length(noise, 2) > 150


def test_real_pixels_are_compared_as_probabilities_of_levels() -> None:
    """A uniform density of 16 levels has -log p(k) = D log 16 whatever the image; noise has no surprise beyond that."""

    class Uniform(GenerativeModel):
        def log_prob(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x))

    model = Uniform((1, 32, 32), pixels="real", levels=16)
    model.anything = nn.Parameter(torch.zeros(()))
    noise = torch.randint(0, 16, (1, 1, 32, 32)) / 15
    surprise = score_images(model, "complexity", noise).item()
    assert abs(surprise) < 0.05 * 1024 * math.log(16)
    assert score_images(model, "complexity", torch.zeros(1, 1, 32, 32)).item() > 2500


def test_calibration_makes_the_round_trip() -> None:
    for kind in MODELS:
        calibration = calibrate(kind(), binary_images(30))
        tensors = calibration.to_tensors()
        assert all(isinstance(value, Tensor) and torch.isfinite(value).all() for value in tensors.values())
        again = Calibration.from_tensors(tensors)
        assert again.count == calibration.count == 30
        assert torch.equal(again.mean_image, binary_images(30).mean(0))
        assert again.scores.keys() == calibration.scores.keys()
        assert all(torch.equal(again.scores[name], values) for name, values in calibration.scores.items())
        assert torch.equal(again.map_scale.threshold, calibration.map_scale.threshold)
        assert torch.equal(again.map_scale.begin, calibration.map_scale.begin)
        assert again.further_scales.keys() == calibration.further_scales.keys()
        assert ("gradient" in again.further_scales) == (kind is Quadratic)
        for name, scale in calibration.further_scales.items():
            assert torch.equal(again.further_scales[name].threshold, scale.threshold)
            assert torch.equal(again.further_scales[name].begin, scale.begin)
    with pytest.raises(ValueError, match="not the tensors of a calibration: wrong"):
        Calibration.from_tensors({"wrong": torch.zeros(1)})
    with pytest.raises(ValueError, match="not calibrated for scorer 'critic'"):
        calibrate(Raster(), binary_images(3)).scores_of("critic")


def test_calibrations_of_before_there_were_several_maps_still_load() -> None:
    model, x = Quadratic(), binary_images(30)
    now = calibrate(model, x)
    tensors = {name: value for name, value in now.to_tensors().items() if not name.startswith("map.gradient.")}
    assert {name for name in tensors if name.startswith("map.")} == {"map.begin", "map.threshold"}
    before = Calibration.from_tensors(tensors)
    assert [method.name for method in before.scaled_maps(model)] == ["model_surprise"]
    assert [method.name for method in now.scaled_maps(model)] == ["model_surprise", "gradient"]
    assert torch.equal(before.map_scale.threshold, now.map_scale.threshold)
    without = {name: value for name, value in tensors.items() if not name.startswith("map.")}
    assert Calibration.from_tensors(without).scaled_maps(model) == {}
    for torn in (("map.begin",), ("map.gradient.threshold",), ("map.begin", "map.threshold")):
        with pytest.raises(ValueError, match="not the tensors of a calibration"):
            Calibration.from_tensors({name: value for name, value in now.to_tensors().items() if name not in torn})


def test_calibration_makes_each_heat_map_once_and_its_numbers_are_those_of_scoring() -> None:
    """The score of the strangest pixels is made of the map whose scale is fitted."""
    model, x, calls = Quadratic(), binary_images(12), []
    model.surprise_map = lambda image: calls.append(len(image)) or Quadratic.surprise_map(model, image)
    calibration = calibrate(model, x)
    assert calls == [1] * 12
    assert torch.equal(calibration.scores_of("peak"), score_images(model, "peak", x))
    assert torch.equal(calibration.map_scale.threshold, fit_map_scale(map_images(model, x)).threshold)
    assert list(calibration.scores) == [entry.name for entry in scorers_for(model)]
    calls.clear()
    assert list(calibrate(model, x, [get_scorer("energy")]).scores) == ["energy"] and len(calls) == 12
    with pytest.raises(ValueError, match="needs Discriminates, which Raster"):
        calibrate(Raster(), x, [get_scorer("critic")])


def test_an_energy_is_called_free_where_hidden_units_are_summed_out() -> None:
    energy = get_scorer("energy")
    assert (energy.name, energy.label_for(model_class("deep_energy"))) == ("energy", "energy")
    assert energy.label_for(model_class("rbm")) == energy.label_for(build_model("label_rbm", SHAPE)) == "free energy"
    assert get_scorer("peak").label_for(model_class("rbm")) == "strangest pixels"


def test_calibration_refuses_what_it_cannot_use() -> None:
    model = Raster()
    with pytest.raises(ValueError, match="no calibration images"):
        calibrate(model, binary_images(0))
    model.layer.bias.data[0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite: likelihood"):
        calibrate(model, binary_images(3))


def test_a_calibration_image_scored_again_meets_its_own_score() -> None:
    """Every calibration image's p-value has rank (its own score included): p in {2, ..., n + 1} / (n + 1)."""
    model, x = Raster(), binary_images(19)
    calibration = calibrate(model, x)
    p = p_values(score_images(model, "likelihood", x), calibration.scores_of("likelihood"))
    assert sorted(p.mul(20).round().int().tolist()) == list(range(2, 21))


def test_a_model_that_knows_its_data_tells_strangers() -> None:
    """Scores point the right way: images from the model score lower than their inverse."""
    model = Raster()
    model.layer.weight.data.zero_()
    model.layer.bias.data.fill_(math.log(0.3 / 0.7))
    normal = binary_images(40)
    for name in ("likelihood", "complexity"):
        assert auroc(score_images(model, name, normal), score_images(model, name, 1 - normal)) > 0.9


def test_hundred_images_take_well_under_a_second() -> None:
    model, x = Raster().eval(), binary_images(100)
    start = time.perf_counter()
    for entry in scorers_for(model):
        score_images(model, entry, x)
    assert time.perf_counter() - start < 1.0
