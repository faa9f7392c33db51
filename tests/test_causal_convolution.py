"""Causal convolutions: what they see is exactly what comes earlier, and pixel by pixel equals all at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gdm_core.layers.causal_convolution import CausalConvolution, ConvolutionCache, PointwiseCache, group_bounds
from gdm_core.layers.pixel_distribution import Bernoulli, Categorical, distribution_of


def is_visible(source: tuple, target: tuple, kernel: tuple[int, int], mask_type: str) -> bool:
    """Whether (row, column, group) may be seen from another, written down from the paper's definition."""
    row, column = target[0] - source[0], target[1] - source[1]
    if abs(row) > kernel[0] // 2 or abs(column) > kernel[1] // 2:
        return False
    if (row, column) == (0, 0):
        return source[2] < target[2] or (mask_type == "B" and source[2] == target[2])
    return row > 0 or (row == 0 and column > 0)


def jacobian(layer: CausalConvolution, x: Tensor) -> Tensor:
    """d y / d x, (out, H, W, in, H, W)."""
    return torch.autograd.functional.jacobian(lambda image: layer(image)[0], x)[:, :, :, 0]


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3), (1, 5), (3, 1)])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(2, 3, 1), (3, 6, 3), (4, 5, 2)])
def test_sees_the_earlier_window_and_nothing_else(mask_type, kernel, inputs, outputs, groups):
    layer = CausalConvolution(inputs, outputs, kernel, mask_type, groups)
    slopes = jacobian(layer, torch.randn(1, inputs, 4, 3))
    sources, targets = group_bounds(inputs, groups), group_bounds(outputs, groups)
    for index in torch.cartesian_prod(*map(torch.arange, slopes.shape)).tolist():
        target = (index[1], index[2], sum(index[0] >= end for end in targets[1:]))
        source = (index[4], index[5], sum(index[3] >= end for end in sources[1:]))
        assert (slopes[tuple(index)] != 0) == is_visible(source, target, kernel, mask_type), (source, target)


def step_by_step(layer: CausalConvolution, x: Tensor) -> Tensor:
    """The layer's output computed one pixel and group after another from a cache."""
    n, _, height, width = x.shape
    y = x.new_full((n, layer.out_bounds[-1], height, width), float("nan"))
    cache = ConvolutionCache(layer, n, width)
    for row in range(height):
        cache.begin_row()
        for column in range(width):
            for group in range(layer.groups):
                take = slice(*layer.in_bounds[group : group + 2])
                if layer.mask_type == "B":
                    cache.slot(column, group).copy_(x[:, take, row, column])
                y[:, slice(*layer.out_bounds[group : group + 2]), row, column] = cache.step(column, group)
                if layer.mask_type == "A":
                    cache.slot(column, group).copy_(x[:, take, row, column])
    return y


@torch.no_grad()
@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("kernel", [1, 3, 7, (1, 3), (5, 1), (3, 5)])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(2, 3, 1), (3, 6, 3), (4, 5, 2)])
def test_pixel_by_pixel_equals_all_at_once(mask_type, kernel, inputs, outputs, groups):
    layer = CausalConvolution(inputs, outputs, kernel, mask_type, groups).double()
    for shape in ((4, 5), (5, 2), (1, 6), (3, 1)):
        x = torch.randn(3, inputs, *shape, dtype=torch.float64)
        torch.testing.assert_close(step_by_step(layer, x), layer(x), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [(1, 3), (3, 3)])
def test_what_a_row_is_given_extra_is_added_to_its_outputs(kernel):
    layer = CausalConvolution(2, 4, kernel, "B", groups=2).double()
    x, extra = torch.randn(5, 2, 3, 4, dtype=torch.float64), torch.randn(3, 4, 5, 4, dtype=torch.float64)
    expected, cache = layer(x) + extra.permute(2, 3, 0, 1), ConvolutionCache(layer, 5, width=4)
    for row in range(3):
        cache.begin_row(extra[row])
        for column, group in itertools.product(range(4), range(2)):
            cache.slot(column, group).copy_(x[:, group : group + 1, row, column])
            found, own = cache.step(column, group), slice(2 * group, 2 * group + 2)
            torch.testing.assert_close(found, expected[:, own, row, column], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(2, 3, 1), (3, 6, 3), (4, 5, 2)])
def test_a_1x1_layer_pixel_by_pixel_equals_all_at_once(mask_type, inputs, outputs, groups):
    layer = CausalConvolution(inputs, outputs, 1, mask_type, groups).double()
    x, total = torch.randn(7, inputs, 2, 1, dtype=torch.float64), torch.randn(7, outputs, dtype=torch.float64)
    cache, y = PointwiseCache(layer, 7), layer(x)
    for pixel in range(2):
        for group, (start, stop) in enumerate(itertools.pairwise(layer.in_bounds)):
            cache.slots[group].copy_(x[:, start:stop, pixel, 0])
            own = slice(*layer.out_bounds[group : group + 2])
            torch.testing.assert_close(cache.step(group), y[:, own, pixel, 0], rtol=0, atol=1e-12)
            added = total[:, own].clone()
            cache.add_to(added, group)
            torch.testing.assert_close(added, total[:, own] + y[:, own, pixel, 0], rtol=0, atol=1e-12)


def test_the_mask_never_touches_the_weight():
    layer = CausalConvolution(3, 6, 3, "A", groups=3)
    before = layer.weight.detach().clone()
    layer(torch.randn(2, 3, 4, 4)).square().sum().backward()
    assert torch.equal(layer.weight, before)
    assert layer.weight[layer.mask == 0].any()  # hidden weights hold values: they are masked, not zeroed
    assert not layer.weight.grad[layer.mask == 0].any()


def test_bad_layers_are_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        CausalConvolution(1, 1, 4)
    with pytest.raises(ValueError, match="mask_type"):
        CausalConvolution(1, 1, 3, "C")
    with pytest.raises(ValueError, match="2 features cannot be split into 3"):
        CausalConvolution(2, 3, 3, "B", groups=3)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("distribution", [Bernoulli(), Categorical(2), Categorical(17), Categorical(256)])
def test_pixel_distributions_sum_to_one(distribution, scale):
    levels = getattr(distribution, "levels", 2)
    logits = scale * torch.randn(5, 1, distribution.parameters, dtype=torch.float64)
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    total = distribution.log_prob(logits.expand(5, levels, -1), values.expand(5, -1)).logsumexp(1)
    torch.testing.assert_close(total, torch.zeros_like(total))


@pytest.mark.parametrize("distribution", [Bernoulli(), Categorical(5)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_equally_spaced_uniforms_give_the_tempered_probabilities(distribution, temperature):
    levels = getattr(distribution, "levels", 2)
    logits = torch.randn(distribution.parameters, dtype=torch.float64)
    uniforms = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    drawn = distribution.sample(logits.expand(100_000, -1), uniforms, temperature)
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    shares = (drawn[:, None] - values).abs().lt(1e-9).double().mean(0)
    expected = (distribution.log_prob(logits.expand(levels, -1), values) / temperature).softmax(0)
    torch.testing.assert_close(shares, expected, rtol=0, atol=2e-5)


def test_only_discrete_pixels_have_a_discrete_distribution():
    with pytest.raises(ValueError, match="choose binary or levels"):
        distribution_of("real", 2)
