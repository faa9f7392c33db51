"""Laws of autoregressive models: samples and completions that follow the density, drawn with every activation once."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from torch import Tensor

from gdm_core.layers.orderings import in_order
from gdm_core.layers.raster_model import PARTICLES, RasterModel, choose
from gdm_core.layers.sampling_arguments import COLDEST, draw_uniforms
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import (
    BUILDERS,
    BY_SCALES,
    COLOUR,
    EIGHT_BIT,
    ENSEMBLES,
    EXACT_FOR_ANY_MASK,
    GREY_BINARY,
    GREY_LEVELS,
    IN_OTHER_ORDERS,
    IN_RASTER_ORDER,
    LEVEL_MODELS,
    all_images,
    chi_square,
    logits_one_by_one,
    random_model,
)  # fmt: skip

# --- sampling ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_sample(model: RasterModel, n: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Sampling as the paper has it: the whole network on the whole image for every value."""
    uniforms = draw_uniforms(model, n, None, temperature, generator)
    x = torch.zeros_like(uniforms)
    colours, height, width = model.data_shape
    for row, column, colour in itertools.product(range(height), range(width), range(colours)):
        place = (slice(None), colour, row, column)
        x[place] = model.distribution.sample(model.logits(x)[place], uniforms[place], temperature)
    return x


GREY_CASES = [((1, 5, 7), 2), ((1, 9, 4), 2), ((1, 1, 6), 2), ((1, 4, 6), 4)]
CASES = [*GREY_CASES, ((3, 4, 3), 2), ((3, 3, 5), 5), ((2, 3, 4), 256)]
INCREMENTAL_CASES = [
    (name, shape, levels) for name in IN_RASTER_ORDER for shape, levels in CASES if levels == 2 or name in LEVEL_MODELS
]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("name", "shape", "levels"), INCREMENTAL_CASES)
def test_incremental_sampling_is_plain_sampling(name, shape, levels, temperature):
    model = random_model(name, shape, levels, scale=1.0)
    plain = plain_sample(model, 7, temperature, seeded_generator(3))
    assert torch.equal(model.sample(7, temperature=temperature, generator=seeded_generator(3)), plain)
    assert plain.unique().numel() > 1


@torch.no_grad()
@pytest.mark.parametrize(("name", "shape", "levels"), INCREMENTAL_CASES)
def test_incremental_logits_in_single_precision(name, shape, levels):
    model = BUILDERS[name](shape, levels).eval()
    x = torch.randint(levels, (5, *shape)) / (levels - 1)
    found = logits_one_by_one(model.incremental(5), x, model.distribution.parameters)
    torch.testing.assert_close(found, model.logits(x), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [((1, 5, 7), 2), ((3, 3, 5), 5)])
@pytest.mark.parametrize("name", sorted(ENSEMBLES))
def test_incremental_logits_in_every_order_in_single_precision(name, shape, levels):
    model, x = BUILDERS[name](shape, levels).eval(), torch.randint(levels, (5, *shape)) / (levels - 1)
    for member, order in enumerate(model.orders.expand(model.number_of_members, -1)):
        network, orders = model.incremental(5, torch.full((5,), member)), order.expand(5, -1)
        found = logits_one_by_one(network, in_order(x, orders), model.distribution.parameters)
        found = torch.stack([in_order(part, orders.argsort(1)) for part in found.unbind(-1)], -1)
        torch.testing.assert_close(found, model.logits(x, member), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [((1, 5, 7), 2), ((3, 3, 5), 5)])
@pytest.mark.parametrize("name", sorted(BY_SCALES))
def test_incremental_logits_at_every_scale_in_single_precision(name, shape, levels):
    model, x = BUILDERS[name](shape, levels).eval(), torch.randint(levels, (5, *shape)) / (levels - 1)
    smaller = None
    for scale in model.scales:
        image = scale.of(x)
        found = logits_one_by_one(scale.incremental(5, smaller), image, model.distribution.parameters)
        torch.testing.assert_close(found, scale(image, smaller), rtol=0, atol=1e-5)
        smaller = image


@pytest.mark.parametrize(
    ("name", "shape", "levels"),
    [(name, (1, 2, 3), 2) for name in BUILDERS]
    + [(name, shape, levels) for name in LEVEL_MODELS for shape, levels in ((COLOUR, 3), (GREY_LEVELS, 4))],
)
def test_samples_follow_the_density(name, shape, levels):
    model, images = random_model(name, shape, levels, scale=1.0), all_images(shape, levels)
    with torch.no_grad():
        log_prob = model.log_prob(images)
    drawn = model.float().sample(100_000, generator=seeded_generator(5))
    statistic, bound = chi_square(drawn, images, log_prob)
    assert statistic < bound


EIGHT_BIT_MODELS = [  # each model once
    "pixel_cnn", "pixel_cnn_plus_plus", "gated_pixel_cnn 5x5", "wavenet", "image_transformer 1 head", "made 3 layers",
    "pixel_rnn row by row", "pixel_rnn row lstm", "pixel_rnn diagonal", "multiscale_pixel_rnn", "markov_chain",
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", EIGHT_BIT_MODELS)
def test_samples_of_eight_bits_follow_the_density(name):
    """65,536 pairs are too many to count each: the high halves of both levels make 256 cells, the low halves others.

    p(x_1) and p(x_2 | x_1) are read from 256 images; of an ensemble of orders it would take all of them.
    """
    model, values = random_model(name, EIGHT_BIT, 256, scale=1.0), all_images((1, 1, 1), 256).flatten()
    pairs = torch.stack([values, torch.zeros_like(values)], 1).view(-1, *EIGHT_BIT)
    first, second = model.conditional(pairs[:1], 0, 0, values)[0, 0], model.conditional(pairs, 0, 1, values)[:, 0]
    drawn = (model.float().sample(100_000, generator=seeded_generator(5)).flatten(1) * 255).round().long()
    halves = (first[:, None] + second).exp().view(16, 16, 16, 16)  # of the first level, high and low, and the second
    cells = all_images(EIGHT_BIT, 16)
    for part, log_shares in ((drawn // 16, halves.sum((1, 3)).log()), (drawn % 16, halves.sum((0, 2)).log())):
        statistic, bound = chi_square(part.double() / 15, cells, log_shares.flatten())
        assert statistic < bound


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_repeats_and_the_global_state_plays_no_part(name):
    model = random_model(name, (1, 4, 5))
    first = model.sample(6, generator=seeded_generator(0))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(first, model.sample(6, generator=seeded_generator(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, model.sample(6, generator=seeded_generator(1)))
    assert not first.is_inference() and model.check_images(first) is first


@pytest.mark.parametrize("name", IN_RASTER_ORDER)
def test_steps_end_in_the_sample_and_grow_by_rows(name):
    model = random_model(name, (3, 4, 5))
    steps = list(model.sample_steps(3, generator=seeded_generator(2)))
    assert torch.equal(steps[-1], model.sample(3, generator=seeded_generator(2)))
    assert len(steps) == 4
    for row, step in enumerate(steps):
        assert torch.equal(step[:, :, : row + 1], steps[-1][:, :, : row + 1]) and not step[:, :, row + 1 :].any()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_low_temperature_draws_likelier_images(name):
    model = random_model(name, (1, 4, 4))
    cold, warm = (model.sample(500, temperature=t, generator=seeded_generator(0)) for t in (0.3, 1.0))
    assert model.log_prob(cold).mean() > model.log_prob(warm).mean() + 0.5


# --- completion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_completion_laws(name):
    model = random_model(name, (2, 3, 4))
    x = torch.randint(2, (6, 2, 3, 4)).double()
    nothing, everything = torch.zeros(1, 1, 3, 4), torch.ones(6, 1, 3, 4)
    sample = model.sample(6, generator=seeded_generator(4))
    assert torch.equal(model.complete(x, nothing, generator=seeded_generator(4)), sample)
    assert torch.equal(model.complete(x, everything), x)
    known = torch.randint(2, (6, 1, 3, 4))
    done = model.complete(x, known, generator=seeded_generator(4))
    assert torch.equal(done[known.expand_as(x) == 1], x[known.expand_as(x) == 1])
    elsewhere = torch.where(known.bool(), x, torch.full_like(x, float("nan")))
    assert torch.equal(model.complete(elsewhere, known, generator=seeded_generator(4)), done)


@pytest.mark.parametrize(("name", "shape", "levels"), [
    (name, shape, levels) for shape, levels, names in [
        ((1, 2, 3), 2, BUILDERS), ((1, 2, 2), 3, LEVEL_MODELS), (GREY_BINARY, 2, ["pixel_cnn", "nade", "made"]),
    ] for name in names if name not in IN_OTHER_ORDERS])  # fmt: skip
def test_completing_a_prefix_follows_the_enumerated_conditional(name, shape, levels):
    model, images = random_model(name, shape, levels, scale=1.0), all_images(shape, levels)
    known = (torch.arange(shape[1] * shape[2]) < 2).view(1, 1, *shape[1:])
    x = images[len(images) // 2 + 1]
    with torch.no_grad():
        fits = (images.flatten(1)[:, :2] == x.flatten()[:2]).all(1)
        conditional = model.log_prob(images).masked_fill(~fits, -math.inf).log_softmax(0)
    drawn = model.float().complete(x.expand(50_000, *shape).float(), known, generator=seeded_generator(6))
    statistic, bound = chi_square(drawn, images, conditional)
    assert statistic < bound


LAST_ROW_KNOWN = [(name, GREY_BINARY, 2, 6) for name in IN_RASTER_ORDER if name not in EXACT_FOR_ANY_MASK]
LAST_PIXEL_KNOWN = [
    (name, shape, 3, count)
    for name in ("gated_pixel_cnn 5x5", "pixel_rnn row by row", "made 2 layers", "markov_chain shared")
    for shape, count in (((1, 2, 2), 3), (COLOUR, 1))
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "shape", "levels", "count"), LAST_ROW_KNOWN + LAST_PIXEL_KNOWN)
def test_completing_any_mask_comes_near_the_enumerated_conditional(name, shape, levels, count):
    """Where all but the first pixels are known: whole completions follow the law of the candidate that is chosen.

    Compared with the conditional itself, 5,000 draws of 64 images are 0.04 away by chance, as far as many a first draw;
    that the law is near it is therefore said of the law, without draws.
    """
    model = random_model(name, shape, levels, scale=1.0)
    images, known, law, conditional, first = enumerated_choice(model, levels, count)
    near, far = ((shares - conditional).abs().sum().item() / 2 for shares in (law, first))
    assert near < 0.1 and near <= 0.2 * far + 1e-9
    assert not model.completion_is_exact(known)
    drawn = model.float().complete(images[5].expand(5_000, *shape).float(), known, generator=seeded_generator(6))
    statistic, bound = chi_square(drawn, images, law.log())
    assert statistic < bound


@torch.no_grad()
@pytest.mark.parametrize("name", ["pixel_cnn", "pixel_rnn diagonal", "made", "markov_chain of all before", "fvsbn"])
def test_a_first_row_of_another_completion_is_noticed(name):
    """By what the test above looks at: each row alone has the right shares still, and only their joint one has not."""
    model = random_model(name, GREY_BINARY, scale=1.0)
    images, known, law, _, _ = enumerated_choice(model, 2, 6)
    drawn = model.float().complete(images[5].expand(5_000, -1, -1, -1).float(), known, generator=seeded_generator(6))
    drawn[:, :, 0] = drawn[:, :, 0].roll(1, 0)
    statistic, bound = chi_square(drawn, images, law.log())
    assert statistic > bound


def enumerated_choice(model: RasterModel, levels: int, count: int) -> tuple[Tensor, ...]:
    """All images, the mask of all but the first pixels, and three laws of what completes images[5] there, (images,).

    That of the one of K candidates that is chosen: of weight w it is one of K alike, q(z) K E[w(z) / (w(z) + W)], with
    W the weight of K - 1 others, drawn 20,000 times. Then the conditional it approaches, and that of a candidate, q.
    """
    images = all_images(model.data_shape, levels)
    known = (torch.arange(images[0, 0].numel()) >= count).view(1, 1, *images.shape[2:])
    fits = ((images == images[5]) | ~known).flatten(1).all(1)
    surprise = model.log_prob_map(images)
    first, weights = (torch.where(part, surprise, 0).flatten(1).sum(1).exp() * fits for part in (~known, known))
    others = weights[first.multinomial(20_000 * (PARTICLES - 1), replacement=True)].view(-1, PARTICLES - 1).sum(1)
    law = PARTICLES * first * (weights[:, None] / (weights[:, None] + others)).mean(1)
    return images, known, law / law.sum(), first * weights / (first * weights).sum(), first


def test_a_candidate_is_chosen_by_its_weight():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    uniforms = ((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)[:, None]
    chosen = choose((weights * 7).log().expand(100_000, 4), uniforms)
    torch.testing.assert_close(torch.bincount(chosen, minlength=4) / 100_000, weights.float(), rtol=0, atol=2e-5)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_bad_requests_are_named(name):
    model = BUILDERS[name]((1, 3, 3), 2)
    x = torch.zeros(2, 1, 3, 3)
    for known in (torch.ones(3, 3), torch.ones(3, 1, 3, 3), torch.ones(1, 1, 3, 2), torch.full((1, 1, 3, 3), 0.5)):
        with pytest.raises(ValueError, match="known must"):
            model.complete(x, known)
    with pytest.raises(ValueError, match="n must be at least 1"):
        model.sample(0)
    for temperature in (0.0, 1e-40, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be at least 1e-06 and finite, got"):
            model.sample(1, temperature=temperature)
    with pytest.raises(ValueError, match="labels"):
        model.sample(2, labels=torch.tensor([1, 2]))
    for values in ([0.0, float("nan")], [-1.0], [2.0], [0.5]):
        with pytest.raises(ValueError, match="values must .*, got " + re.escape(str(values))):
            model.conditional(x, 0, 0, torch.tensor(values))
    with pytest.raises(ValueError, match=r"values must have shape \(V,\), got \(1, 2\)"):
        model.conditional(x, 0, 0, torch.zeros(1, 2))
    for place in ((3, 0), (0, -1)):
        with pytest.raises(ValueError, match="row and column must lie in 3 x 3"):
            model.conditional(x, *place, torch.zeros(1))


@pytest.mark.parametrize("kind", ["binary", "levels", "logistic", "real"])
def test_the_lowest_temperature_draws_the_likeliest_values(kind):
    """In float32, with logits far larger than a network's, and whatever the noise."""
    model = {
        "binary": lambda: build_model("pixel_cnn", (1, 3, 3), channels=4, blocks=1),
        "levels": lambda: build_model("pixel_cnn", (1, 3, 3), channels=4, blocks=1, pixels="levels", levels=5),
        "logistic": lambda: build_model("pixel_cnn_plus_plus", (1, 3, 3), channels=4, components=3, levels=9),
        "real": lambda: build_model("rnade", (1, 3, 3), hidden_units=4, components=3),
    }[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter)).mul_(4)
    images = model.sample(200, temperature=COLDEST, generator=seeded_generator(0))
    assert images.isfinite().all()
    assert torch.allclose(images, images[:1].expand_as(images), atol=1e-3)
