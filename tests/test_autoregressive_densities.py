"""Laws of autoregressive models: densities that sum to one, of values that depend on their predecessors alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch
from tests.autoregressive_cases import (
    BUILDERS,
    BY_SCALES,
    COLOUR,
    EIGHT_BIT,
    ENSEMBLES,
    GREY_BINARY,
    GREY_LEVELS,
    IN_OTHER_ORDERS,
    IN_RASTER_ORDER,
    LEVEL_MODELS,
    ONE_DENSITY,
    SHORT_SIGHTED,
    all_images,
    order_of,
    random_model,
    slopes_in_order,
)  # fmt: skip

SEE_EVERYTHING = [name for name in BUILDERS if name not in SHORT_SIGHTED | (IN_OTHER_ORDERS - BY_SCALES)]

# --- densities ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("shape", [GREY_BINARY, (1, 1, 7), (1, 6, 1), (3, 1, 2)])
@pytest.mark.parametrize("name", BUILDERS)
def test_binary_densities_sum_to_one(name, shape, scale):
    total = random_model(name, shape, scale=scale).log_prob(all_images(shape)).logsumexp(0).item()
    assert total == pytest.approx(0, abs=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [(GREY_LEVELS, 4), (COLOUR, 3), ((2, 2, 1), 5), (EIGHT_BIT, 256)])
@pytest.mark.parametrize("name", LEVEL_MODELS)
def test_densities_over_levels_sum_to_one(name, shape, levels):
    images = all_images(shape, levels)
    total = torch.cat([random_model_log_prob(name, shape, levels, part) for part in images.split(16384)])
    assert len(total) == levels ** math.prod(shape)
    assert total.logsumexp(0).item() == pytest.approx(0, abs=1e-9)


def random_model_log_prob(name: str, shape: tuple, levels: int, x: Tensor) -> Tensor:
    torch.manual_seed(1)
    return random_model(name, shape, levels).log_prob(x)


@torch.no_grad()
@pytest.mark.parametrize("name", BUILDERS)
def test_the_map_sums_to_the_density(name):
    model = random_model(name, (3, 2, 2))
    x = all_images((3, 2, 2))[::37]
    surprise = model.log_prob_map(x)
    assert surprise.shape == (len(x), 1, 2, 2)
    if name in ENSEMBLES:
        assert (surprise.flatten(1).sum(1) < model.log_prob(x)).all()
    else:
        torch.testing.assert_close(surprise.flatten(1).sum(1), model.log_prob(x))


@torch.no_grad()
@pytest.mark.parametrize("name", BUILDERS)
def test_log_prob_is_an_image_alone(name):
    model = random_model(name, GREY_BINARY)
    x = all_images(GREY_BINARY)[::50]
    torch.testing.assert_close(torch.cat([model.log_prob(image[None]) for image in x]), model.log_prob(x))


@pytest.mark.parametrize("name", IN_RASTER_ORDER)
def test_loss_is_the_mean_negative_log_likelihood(name):
    model = random_model(name, GREY_BINARY)
    x = all_images(GREY_BINARY)[::7]
    torch.testing.assert_close(model.loss(Batch(x))["loss"], -model.log_prob(x).mean())


# --- dependence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ONE_DENSITY if name not in IN_OTHER_ORDERS])
def test_conditionals_depend_on_predecessors_alone(name):
    """Changing a pixel changes no conditional before it in raster order, and its own only through its value."""
    model = random_model(name, (1, 3, 4))
    x = torch.randint(2, (5, 1, 3, 4)).double()
    with torch.no_grad():
        surprise = model.log_prob_map(x).flatten(1)
        for i in range(12):
            changed = x.flatten(1).clone()
            changed[:, i:] = 1 - changed[:, i:]
            after = model.log_prob_map(changed.view_as(x)).flatten(1)
            torch.testing.assert_close(after[:, :i], surprise[:, :i], rtol=0, atol=1e-12)
            both = torch.stack([after[:, i], surprise[:, i]]).logsumexp(0)
            torch.testing.assert_close(both, torch.zeros_like(both))


@pytest.mark.parametrize(
    ("name", "shape", "levels"),
    [(name, shape, 2) for name in SEE_EVERYTHING for shape in ((1, 3, 3), (2, 2, 3))]
    + [(name, (1, 5, 6), 2) for name in SEE_EVERYTHING if name in BY_SCALES]
    + [(name, (3, 2, 2), 3) for name in SEE_EVERYTHING if name in LEVEL_MODELS],
)
def test_logits_depend_on_every_predecessor_and_on_nothing_else(name, shape, levels):
    """By gradients: the Jacobian in its order, colour after colour, is strictly lower triangular and full there."""
    order = order_of(shape, scales=3 if name in BY_SCALES else 1)
    slopes = slopes_in_order(random_model(name, shape, levels).logits, shape, order)
    torch.testing.assert_close(slopes != 0, torch.ones_like(slopes).tril(-1).bool())


@torch.no_grad()
@pytest.mark.parametrize("name", BUILDERS)
def test_conditionals_sum_to_one_and_are_the_map(name):
    levels = 3 if name in LEVEL_MODELS else 2
    model, shape = random_model(name, (2, 3, 2), levels), (2, 3, 2)
    x = all_images(shape, 2)[::401]
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    for row, column in itertools.product(range(3), range(2)):
        conditional = model.conditional(x, row, column, values)  # (N, C, levels)
        torch.testing.assert_close(conditional.logsumexp(-1), torch.zeros(len(x), 2).double())
        level = (x[:, :, row, column] * (levels - 1)).long()
        found = conditional.gather(-1, level[..., None]).sum((1, 2))
        surprise = model.log_prob_map(x)[:, 0, row, column]
        if name in ENSEMBLES:  # the logarithm of a mean, and a mean of logarithms
            assert (found >= surprise - 1e-12).all()
        else:
            torch.testing.assert_close(found, surprise)
    with pytest.raises(ValueError, match="row and column must lie in 3 x 2 pixels"):
        model.conditional(x, 3, 0, values)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_bad_images_are_named(name):
    model = BUILDERS[name]((1, 3, 3), 2)
    good = torch.zeros(2, 1, 3, 3)
    balanced = torch.full((1, 1, 3, 3), 0.5)  # 8 * (0.5 - 0.5^2) + (2 - 2^2) = 0
    balanced[..., 0, 0] = 2
    for bad, message in [
        (good[0], r"images must have shape \(N, 1, 3, 3\)"),
        (torch.zeros(2, 1, 3, 4), r"images must have shape \(N, 1, 3, 3\)"),
        (good + float("nan"), "NaN"),
        (good + 0.5, "exactly 0 or 1"),
        (good + 2, r"\[0, 1\]"),
        (good - float("inf"), "infinite"),
        (balanced, r"\[0, 1\]"),
    ]:
        for verb in (model.log_prob, model.log_prob_map, lambda x: model.complete(x, torch.ones(1, 1, 3, 3))):
            with pytest.raises(ValueError, match=message):
                verb(bad)


@pytest.mark.parametrize(("weights", "images"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@pytest.mark.parametrize("name", BUILDERS)
def test_images_of_another_precision_are_named(name, weights, images):
    model, x, known = BUILDERS[name]((1, 3, 3), 2).to(weights), torch.zeros(2, 1, 3, 3), torch.ones(1, 1, 3, 3)
    message = rf"images are {images} and the model's weights are {weights}: .* images\.to\({weights}\) or model\.to"
    verbs = (model.log_prob, model.log_prob_map, lambda x: model.complete(x, known), lambda x: model.loss(Batch(x)))
    for verb in verbs:
        with pytest.raises(ValueError, match=message):
            verb(x.to(images))
    assert model.log_prob(x.to(weights)).dtype == weights


def test_autocast_brings_precisions_together_by_itself():
    model, x = BUILDERS["pixel_cnn"]((1, 3, 3), 2), torch.zeros(2, 1, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(model.log_prob(x.bfloat16()).float(), model.log_prob(x).float(), atol=0.05)
    assert torch.isfinite(model.bfloat16().log_prob(x.bfloat16())).all()


@pytest.mark.parametrize("name", LEVEL_MODELS)
def test_a_value_between_levels_is_named(name):
    with pytest.raises(ValueError, match="4 levels"):
        BUILDERS[name]((1, 2, 2), 4).log_prob(torch.full((1, 1, 2, 2), 0.5))
