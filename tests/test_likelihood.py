"""One path to every likelihood: the kind follows from what the model can do, and the numbers follow by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor, nn

import gdm_core
from gdm_core.contract import GenerativeModel
from gdm_core.likelihoods import Likelihood, bits_per_dimension, likelihood
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model

SHAPE = (1, 3, 3)
SMALL = {
    "independent_bernoulli": {}, "nade": {"hidden_units": 4}, "pixel_cnn": {"channels": 2, "blocks": 1},
    "rbm": {"hidden_units": 4}, "vae": {"hidden_units": 6, "latent_units": 2}, "dcgan": {"channels": 2},
    "deep_energy": {"channels": 2},
}  # fmt: skip


def model_of(name: str) -> GenerativeModel:
    torch.manual_seed(0)
    model = build_model(name, SHAPE, **SMALL[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


def binary_images(n: int = 7) -> Tensor:
    return torch.rand(n, *SHAPE, generator=seeded_generator(0, "binary")).round()


def assess(name: str, images: Tensor | None = None, **settings) -> Likelihood:
    settings = {"k": 20, "chains": 20} | settings
    return likelihood(model_of(name), binary_images() if images is None else images, **settings)


class Given(GenerativeModel):
    """A density written into the test."""

    def __init__(self, log_prob: Callable[[Tensor], Tensor], **pixels) -> None:
        super().__init__(SHAPE, **pixels)
        self.density, self.parameter = log_prob, nn.Parameter(torch.zeros(()))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.density(x)


# --- kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, settings, kind",
    [
        ("independent_bernoulli", {}, "exact"),
        ("nade", {}, "exact"),
        ("pixel_cnn", {}, "exact"),
        ("vae", {}, "lower bound"),
        ("rbm", {}, "exact"),
        ("rbm", {"temperatures": None}, "exact"),
        ("rbm", {"temperatures": 50}, "estimate"),
        ("rbm", {"temperatures": [0, 0.5, 1]}, "estimate"),
    ],
)
def test_the_kind_follows_from_what_the_model_can_do(name: str, settings: dict, kind: str) -> None:
    record = assess(name, **settings)
    assert (record.kind, record.unit, record.dimensions) == (kind, "nats per image", 9)
    assert record.values.shape == (7,) and record.values.dtype == torch.float64
    assert record.values.device.type == "cpu" and not record.values.requires_grad
    assert (record.pixels, record.levels) == ("binary", 2)
    assert (record.log_partition is not None) == (name == "rbm")


@pytest.mark.parametrize("name", ["dcgan", "deep_energy"])
def test_without_a_likelihood_there_are_no_numbers(name: str) -> None:
    """An adversarial model; and an energy whose log Z nobody knows."""
    record = assess(name, torch.rand(4, *SHAPE))
    assert (record.kind, len(record.values), record.settings) == ("none", 0, {})
    assert math.isnan(record.mean) and math.isnan(record.standard_error) and math.isnan(record.bits_per_dimension())


def test_a_machine_too_large_to_enumerate_is_estimated() -> None:
    model = build_model("rbm", (1, 5, 5), hidden_units=21)
    record = likelihood(model, torch.ones(2, 1, 5, 5), temperatures=5, chains=3)
    assert record.kind == "estimate"


def test_the_public_name_is_this_one() -> None:
    assert gdm_core.likelihood is likelihood and gdm_core.Likelihood is Likelihood


# --- values ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["independent_bernoulli", "nade", "pixel_cnn"])
def test_exact_values_are_the_model_s(name: str) -> None:
    torch.testing.assert_close(assess(name).values, model_of(name).log_prob(binary_images()).double())


@torch.no_grad()
def test_an_enumerated_machine_sums_to_one() -> None:
    everything = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9).view(-1, *SHAPE)
    record = assess("rbm", everything)
    assert record.values.logsumexp(0).item() == pytest.approx(0, abs=1e-5)
    partition = record.log_partition
    assert partition.kind == "exact" and partition.low == partition.value == partition.high


def test_an_estimate_is_near_the_exact_value_and_names_its_settings() -> None:
    exact, estimate = assess("rbm"), assess("rbm", temperatures=100, chains=50)
    assert estimate.settings == {"temperatures": 100, "chains": 50}
    gap = estimate.values - exact.values
    torch.testing.assert_close(gap, gap[:1].expand(7))  # the error of log Z is common to all images
    assert abs(gap[0].item()) < 0.3
    assert estimate.log_partition.low <= exact.log_partition.value <= estimate.log_partition.high
    assert gap[0].item() == pytest.approx(exact.log_partition.value - estimate.log_partition.value)


@torch.no_grad()
def test_the_bound_is_the_log_of_the_mean_weight() -> None:
    model, x = model_of("vae"), binary_images()
    record = likelihood(model, x, k=30, seed=5)
    weights = model.log_weights(x, 30, seeded_generator(5, "importance weights")).double().exp()
    torch.testing.assert_close(record.values, weights.mean(0).log())
    assert record.settings == {"k": 30}


def test_more_draws_raise_the_bound_on_average() -> None:
    few = torch.stack([assess("vae", k=1, seed=seed).values.mean() for seed in range(40)]).mean()
    many = assess("vae", k=2000).values.mean()
    assert few < many


def test_standard_error_and_mean_are_numpy_s() -> None:
    values = torch.randn(50, dtype=torch.float64) * 3 - 20
    record = Likelihood(values, "exact", "binary", 2, 9)
    assert record.mean == pytest.approx(numpy.mean(values.numpy()))
    assert record.standard_error == pytest.approx(numpy.std(values.numpy(), ddof=1) / math.sqrt(50))
    assert record.bits_per_dimension_error() == pytest.approx(record.standard_error / 9 / math.log(2))


def test_one_image_has_no_standard_error() -> None:
    record = assess("nade", binary_images(1))
    assert math.isfinite(record.mean) and math.isnan(record.standard_error)


def test_no_images_give_no_values() -> None:
    record = assess("nade", binary_images(0))
    assert len(record.values) == 0 and record.kind == "exact" and math.isnan(record.mean)


# --- bits per dimension ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_density_on_the_unit_interval_costs_all_bits_of_a_level(levels: int) -> None:
    """log p(x) = 0 on [0, 1]^D: a level has probability 1 / S per dimension, which is log2 S bits."""
    uniform = Given(lambda x: torch.zeros(len(x)), pixels="real", levels=levels)
    record = likelihood(uniform, torch.rand(3, *SHAPE))
    assert record.mean == 0
    assert record.bits_per_dimension() == pytest.approx(math.log2(levels), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
def test_a_uniform_choice_of_level_costs_the_same_bits(levels: int) -> None:
    uniform = Given(lambda x: torch.full((len(x),), -9 * math.log(levels)), pixels="levels", levels=levels)
    record = likelihood(uniform, torch.zeros(3, *SHAPE))
    assert record.mean == pytest.approx(-9 * math.log(levels), rel=1e-6)
    assert record.bits_per_dimension() == pytest.approx(math.log2(levels), rel=1e-6)


def test_fair_coins_cost_one_bit_each() -> None:
    record = likelihood(build_model("independent_bernoulli", SHAPE), binary_images())
    torch.testing.assert_close(record.values, torch.full((7,), -9 * math.log(2), dtype=torch.float64))
    assert record.bits_per_dimension() == pytest.approx(1)


def test_bits_per_dimension_by_hand() -> None:
    assert bits_per_dimension(-18 * math.log(2), 9) == pytest.approx(2)
    assert bits_per_dimension(9 * math.log(2), 9, 256) == pytest.approx(7)  # twice the uniform density: a bit less


# --- company, seeds, side effects --------------------------------------------------------------------------------

EVERY = [("nade", {}), ("pixel_cnn", {}), ("vae", {}), ("rbm", {}), ("rbm", {"temperatures": 10})]


@pytest.mark.parametrize("name, settings", EVERY)
def test_an_image_s_value_does_not_depend_on_the_batch(name: str, settings: dict) -> None:
    x = binary_images()
    together = assess(name, x, **settings).values
    for size in (1, 2, 3):
        torch.testing.assert_close(assess(name, x, batch_size=size, **settings).values, together)
    alone = torch.cat([assess(name, x[i : i + 1], **settings).values for i in range(len(x))])
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(assess(name, x.flip(0), **settings).values.flip(0), together)


@pytest.mark.parametrize("name, settings", EVERY)
def test_a_seed_repeats_and_nothing_else_is_touched(name: str, settings: dict) -> None:
    for training in (True, False):
        model = model_of(name).train(training)
        before, state = torch.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
        first = likelihood(model, binary_images(), k=5, chains=5, seed=3, **settings).values
        assert torch.equal(before, torch.get_rng_state())
        assert model.training == training and all(part.training == training for part in model.modules())
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        torch.manual_seed(1234)
        assert torch.equal(first, likelihood(model, binary_images(), k=5, chains=5, seed=3, **settings).values)


@pytest.mark.parametrize("name, settings", [("vae", {}), ("rbm", {"temperatures": 10})])
def test_another_seed_gives_another_estimate(name: str, settings: dict) -> None:
    assert not torch.equal(assess(name, seed=0, **settings).values, assess(name, seed=1, **settings).values)


def test_the_model_is_evaluated_in_eval_mode() -> None:
    seen = []
    model = Given(lambda x: seen.append(model.training) or torch.zeros(len(x))).train()
    likelihood(model, binary_images())
    assert seen == [False] and model.training


def test_the_training_mode_is_put_back_after_an_error() -> None:
    model = model_of("nade").train()
    with pytest.raises(ValueError, match="images"):
        likelihood(model, torch.rand(2, *SHAPE))
    assert model.training


@pytest.mark.parametrize("name", ["nade", "rbm", "vae"])
def test_bad_requests_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="images"):
        assess(name, torch.rand(2, 1, 4, 4))
    if name == "vae":
        with pytest.raises(ValueError, match="k must be at least 1"):
            assess(name, k=0)
    if name == "rbm":
        with pytest.raises(ValueError, match="temperatures"):
            assess(name, temperatures=1)
        with pytest.raises(ValueError, match="chains"):
            assess(name, chains=1)


def test_a_log_z_that_is_known_is_not_annealed_again() -> None:
    model, x = build_model("rbm", (1, 5, 5), hidden_units=25), torch.zeros(3, 1, 5, 5)
    first = likelihood(model, x, temperatures=20)
    again = likelihood(model, x, temperatures=7, log_z=first.log_partition)
    assert again.log_partition is first.log_partition and torch.equal(again.values, first.values)
