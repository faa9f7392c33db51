"""The mixture of truncated Gaussians: a density for any parameters, in both precisions, and sampled by one uniform."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gdm_core.layers.mixture_of_truncated_gaussians import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    MixtureOfTruncatedGaussians,
    log_density,
    quantile,
)
from gdm_core.randomness import seeded_generator

MEANS = (-0.5, -0.1, -1e-3, 0.0, 1e-3, 0.3, 0.5, 0.9, 1.0, 1.01, 1.5)
SCALES = (SMALLEST_SCALE, 0.01, 0.1, 1.0, LARGEST_SCALE)
every_component = pytest.mark.parametrize("mean, scale", [(mean, scale) for mean in MEANS for scale in SCALES])
extremes = pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 1000.0])

POINTS = torch.sigmoid(torch.linspace(-36, 36, 200_001, dtype=torch.float64))  # dense towards both edges
WIDTHS = POINTS * (1 - POINTS) * 72 / 200_000  # of the integral over x in the logit of x


COARSE, COARSE_WIDTHS = POINTS[::5], 5 * WIDTHS[::5]  # for whole integrals: twice as fine as the narrowest component


def component(mean: float, scale: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean, dtype=dtype), torch.tensor(scale, dtype=dtype)


def random_logits(n: int, components: int, size: float) -> Tensor:
    return size * torch.randn(n, 3 * components, generator=seeded_generator(1), dtype=torch.float64)


def share_below(values: Tensor, log_density: Tensor) -> Tensor:
    """The integral of a density given at POINTS up to each value, linear in the logit between them."""
    total = torch.cat([torch.zeros(1).double(), (log_density.exp() * WIDTHS).cumsum(0)])
    place = (torch.logit(values.double(), eps=1e-15) + 36) / 72 * 200_000 + 0.5
    low = place.floor().long().clamp(0, len(total) - 2)
    return torch.lerp(total[low], total[low + 1], place - low)


# --- the density -------------------------------------------------------------------------------------------------


@every_component
def test_a_component_is_a_gaussian_that_integrates_to_one(mean, scale):
    """Its shape is that of the formula, and its integral over [0, 1] is 1."""
    log_p = log_density(POINTS, *component(mean, scale))
    assert (log_p.exp() * WIDTHS).sum().item() == pytest.approx(1, abs=1e-9)
    shape = -0.5 * ((POINTS - mean) / scale) ** 2
    highest = shape.argmax()
    found, expected = log_p - log_p[highest], shape - shape[highest]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-8)


@every_component
def test_single_precision_agrees_with_double(mean, scale):
    x = torch.cat([torch.linspace(0, 1, 101), torch.logspace(-7, -2, 30), 1 - torch.logspace(-6, -2, 30)])
    single = component(mean, scale, torch.float32)
    found = log_density(x, *single)
    expected = log_density(x.double(), *(part.double() for part in single))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@extremes
def test_any_logits_give_a_density(size):
    distribution = MixtureOfTruncatedGaussians(3)
    for logits in random_logits(15, 3, size):
        log_p = distribution.log_prob(logits.expand(len(COARSE), -1), COARSE)
        assert (log_p.exp() * COARSE_WIDTHS).sum().item() == pytest.approx(1, abs=1e-9)


@extremes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_slopes_are_finite_up_to_the_edges(size, dtype):
    logits = random_logits(200, 4, size).to(dtype).requires_grad_()
    for value in (0.0, 1e-7, 0.5, 1.0):
        log_p = MixtureOfTruncatedGaussians(4).log_prob(logits, torch.full((200,), value, dtype=dtype))
        (slope,) = torch.autograd.grad(log_p.sum(), logits)
        assert log_p.isfinite().all() and slope.isfinite().all()


def test_slopes_are_those_of_finite_differences():
    logits = random_logits(30, 2, 2.0).requires_grad_()
    x = torch.rand(30, generator=seeded_generator(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(MixtureOfTruncatedGaussians(2).log_prob, (logits, x))


def test_the_start_is_spread_out_and_its_slopes_differ():
    distribution = MixtureOfTruncatedGaussians(5)
    start = distribution.spread_out().double()
    log_p = distribution.log_prob(start.expand(len(POINTS), -1), POINTS)
    assert log_p[(POINTS > 0.1) & (POINTS < 0.9)].exp().sub(1).abs().max() < 0.6  # nearly uniform
    assert start.shape == (distribution.parameters,)


# --- sampling ----------------------------------------------------------------------------------------------------


@every_component
def test_a_quantile_has_its_share_below_it(mean, scale):
    shares = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    values = quantile(shares, *(part.expand(400) for part in component(mean, scale)))
    below = share_below(values, log_density(POINTS, *component(mean, scale)))
    torch.testing.assert_close(below, shares, rtol=0, atol=3e-4)
    assert (values.diff() > 0).all()


@every_component
def test_quantiles_in_single_precision(mean, scale):
    shares = torch.tensor([0.0, 2.0**-24, 0.01, 0.3, 0.5, 0.9, 1 - 2.0**-24])
    single = [part.expand(7) for part in component(mean, scale, torch.float32)]
    found = quantile(shares, *single)
    expected = quantile(shares[1:-1].double(), *(part[1:-1].double() for part in single))
    assert found.min() >= 0 and found.max() <= 1 and (found.diff() >= 0).all()
    torch.testing.assert_close(found[2:-1].double(), expected[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0])
def test_one_uniform_draws_from_the_mixture(size):
    """Uniforms at even distances give draws whose distribution function is the mixture's (Kolmogorov)."""
    distribution, n = MixtureOfTruncatedGaussians(4), 40_000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for logits in random_logits(3, 4, size):
        drawn = distribution.sample(logits.expand(n, -1), uniforms).sort().values
        log_p = distribution.log_prob(logits.expand(len(POINTS), -1), POINTS)
        torch.testing.assert_close(share_below(drawn, log_p), uniforms, rtol=0, atol=3e-4)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 3.0])
def test_a_temperature_raises_a_component_to_its_inverse_power(temperature):
    distribution, n = MixtureOfTruncatedGaussians(1), 20_000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for logits in random_logits(4, 1, 1.0):
        log_p = distribution.log_prob(logits.expand(len(POINTS), -1), POINTS) / temperature
        log_p = log_p - (log_p.exp() * WIDTHS).sum().log()
        drawn = distribution.sample(logits.expand(n, -1), uniforms, temperature).sort().values
        torch.testing.assert_close(share_below(drawn, log_p), uniforms, rtol=0, atol=3e-4)


def test_a_temperature_sharpens_the_weights():
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64)
    means = torch.tensor([-3.0, 3.0], dtype=torch.float64)  # below 0 and above 1: the halves belong to one each
    logits = torch.cat([weights, means, torch.full((2,), -1.0).double()]).expand(10_000, -1)
    uniforms = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    for temperature in (0.25, 1.0):
        high = (MixtureOfTruncatedGaussians(2).sample(logits, uniforms, temperature) > 0.5).double().mean()
        assert high.item() == pytest.approx(1 / (1 + math.exp(-1 / temperature)), abs=1e-3)
