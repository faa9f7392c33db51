"""Multi-scale PixelRNN: one density in an order of its own, drawn scale after scale."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import GREY_BINARY, all_images, chi_square, order_of, pixels_of, slopes_in_order

KINDS = ["row_lstm", "diagonal_bilstm"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def random_scales(shape: tuple, levels: int = 2, stretch: float = 1.0, **arguments: object) -> GenerativeModel:
    """In float64, with parameters stretched and away from their start."""
    small = {"channels": 6, "layers": 1, "kernel_size": 3, **arguments}
    model = build_model("multiscale_pixel_rnn", shape, **small, **pixels_of(levels)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3).mul_(stretch)
    return model


# --- the density -------------------------------------------------------------------------------------------------

SIZES = [
    ((1, 3, 3), 2, 2, 2), ((1, 2, 5), 2, 2, 3), ((1, 3, 3), 2, 3, 2), ((1, 1, 7), 2, 3, 2), ((2, 5, 1), 2, 2, 4),
    ((3, 1, 2), 3, 2, 2), ((1, 2, 3), 4, 2, 2), ((1, 1, 1), 5, 2, 2), ((1, 3, 2), 2, 2, 9),
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("stretch", [1.0, 10.0])
@pytest.mark.parametrize(("shape", "levels", "scales", "factor"), SIZES)
@every_kind
def test_it_sums_to_one(kind, shape, levels, scales, factor, stretch):
    """Over all images, whether or not the factor divides the sizes, and where a scale is a single pixel."""
    model = random_scales(shape, levels, stretch, kind=kind, scales=scales, factor=factor)
    assert model.log_prob(all_images(shape, levels)).logsumexp(0).item() == pytest.approx(0, abs=1e-9)


@torch.no_grad()
@every_kind
def test_the_small_image_has_a_density_of_its_own(kind):
    """At its pixels the map is the small network's, whatever lies around; summed over what lies around it is 1."""
    model, shape = random_scales((1, 3, 4), kind=kind), (1, 3, 4)
    x = (torch.rand(6, *shape) < 0.5).double()
    small = x[..., ::2, ::2]
    alone = model.distribution.log_prob(model.scales[0].network(small), small)
    torch.testing.assert_close(model.log_prob_map(x)[..., ::2, ::2], alone)
    everything = all_images(shape)
    same = everything[(everything[..., ::2, ::2] == small[0]).flatten(1).all(1)]
    assert len(same) == 2**8
    torch.testing.assert_close(model.log_prob(same).logsumexp(0), alone[0].sum())


@pytest.mark.parametrize(
    ("shape", "scales", "factor"),
    [((1, 5, 6), 2, 2), ((1, 4, 5), 2, 2), ((1, 1, 13), 2, 2), ((2, 3, 5), 2, 2), ((1, 5, 7), 3, 2), ((1, 7, 7), 2, 3)],
)
@every_kind
def test_nothing_later_is_seen_and_all_of_the_small_image_ahead(kind, shape, scales, factor):
    """By gradients; diagonal LSTMs see everything before, and no kind less than the whole of the smaller image."""
    model = random_scales(shape, kind=kind, scales=scales, factor=factor, channels=18)
    found = slopes_in_order(model.logits, shape, order_of(shape, scales, factor)) != 0
    admissible = torch.ones_like(found).tril(-1).bool()
    assert not found[~admissible].any()
    small = math.prod(model.scales[-2].size) * shape[0]  # the values of the last scale's smaller image come first
    assert found[small:, :small].all()
    if kind == "diagonal_bilstm":
        assert found[admissible].all()


@torch.no_grad()
def test_known_pixels_are_certain_in_the_larger_network():
    """Whatever the larger network says of a small image's pixels plays no part."""
    model, x = random_scales(GREY_BINARY), all_images(GREY_BINARY)[::9]
    before = model.log_prob_map(x)
    model.scales[1].network.output.bias += 3
    after = model.log_prob_map(x)
    assert torch.equal(before[..., ::2, ::2], after[..., ::2, ::2])
    others = torch.ones(3, 3, dtype=torch.bool)
    others[::2, ::2] = False
    assert (before != after)[:, 0, others].all()


# --- drawing -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_sample(model: GenerativeModel, n: int, order: list[tuple[int, int]], seed: int) -> Tensor:
    """Every network on the whole image for every value, in the order of the scales."""
    uniforms = draw_uniforms(model, n, None, 0.8, seeded_generator(seed))
    x = torch.zeros_like(uniforms)
    for (row, column), colour in itertools.product(order, range(model.data_shape[0])):
        place = (slice(None), colour, row, column)
        x[place] = model.distribution.sample(model.logits(x)[place], uniforms[place], 0.8)
    return x


@pytest.mark.parametrize(
    ("shape", "levels", "scales", "factor"),
    [((1, 5, 6), 2, 2, 2), ((1, 5, 5), 2, 3, 2), ((3, 4, 3), 2, 2, 3), ((2, 3, 5), 7, 2, 2), ((1, 6, 1), 2, 2, 2)],
)
@every_kind
def test_drawing_is_plain_sampling_in_its_order(kind, shape, levels, scales, factor):
    model = random_scales(shape, levels, kind=kind, scales=scales, factor=factor, layers=2)
    plain = plain_sample(model, 7, order_of(shape, scales, factor), seed=3)
    assert torch.equal(model.sample(7, temperature=0.8, generator=seeded_generator(3)), plain)
    assert plain.unique().numel() > 1


@pytest.mark.parametrize(("shape", "factor"), [(GREY_BINARY, 2), ((1, 2, 4), 3)])
@every_kind
def test_samples_follow_the_density(kind, shape, factor):
    model, images = random_scales(shape, kind=kind, factor=factor), all_images(shape)
    drawn = model.sample(100_000, generator=seeded_generator(5))
    with torch.no_grad():
        statistic, bound = chi_square(drawn, images, model.log_prob(images))
    assert statistic < bound


def test_steps_are_rows_of_every_scale():
    model = random_scales((2, 5, 6), scales=3)
    steps = list(model.sample_steps(3, generator=seeded_generator(2)))
    assert len(steps) == 2 + 3 + 5
    last = steps[-1]
    assert torch.equal(last, model.sample(3, generator=seeded_generator(2)))
    rows = [(4, 0), (4, 1), (2, 0), (2, 1), (2, 2), *((1, row) for row in range(5))]
    for step, (stride, row) in zip(steps, rows, strict=True):
        seen = torch.zeros(5, 6, dtype=torch.bool)
        seen[:: 2 * stride, :: 2 * stride] = stride < 4
        seen[::stride, ::stride][: row + 1] = True
        assert torch.equal(step, torch.where(seen, last, torch.zeros_like(last)))


# --- completion --------------------------------------------------------------------------------------------------


def mask_of(places: list[tuple[int, int]], shape: tuple) -> Tensor:
    known = torch.zeros(1, 1, *shape[1:])
    for row, column in places:
        known[..., row, column] = 1
    return known


@pytest.mark.parametrize(("scales", "factor"), [(2, 2), (3, 2), (2, 3)])
def test_a_completion_is_exact_where_its_own_order_begins_with_the_known(scales, factor):
    shape = (2, 4, 5)
    model, order = random_scales(shape, scales=scales, factor=factor), order_of(shape, scales, factor)
    for count in range(21):
        assert model.completion_is_exact(mask_of(order[:count], shape))
        if 0 < count < 20:
            assert not model.completion_is_exact(mask_of([*order[: count - 1], order[count]], shape))
            both = torch.cat([mask_of(order[:count], shape), mask_of(order[1:], shape)])
            assert not model.completion_is_exact(both)
    raster = mask_of(sorted(order)[:2], shape)
    assert not model.completion_is_exact(raster)


@every_kind
def test_completing_a_prefix_follows_the_enumerated_conditional(kind):
    shape = (1, 3, 3)
    model, images = random_scales(shape, kind=kind), all_images(shape)
    known = mask_of(order_of(shape)[:5], shape)  # the small image and one pixel between
    x = images[len(images) // 2 + 17]
    with torch.no_grad():
        fits = ((images == x) | (known == 0)).flatten(1).all(1)
        conditional = model.log_prob(images).masked_fill(~fits, -math.inf).log_softmax(0)
    drawn = model.complete(x.expand(20_000, *shape), known, generator=seeded_generator(6))
    statistic, bound = chi_square(drawn, images, conditional)
    assert fits.sum() == 16 and statistic < bound


@torch.no_grad()
@every_kind
def test_completing_any_mask_comes_near_the_enumerated_conditional(kind):
    """With the last pixels of its order known: weighted candidates come nearer than first draws."""
    shape = (1, 2, 4)
    model, images = random_scales(shape, stretch=2.0, kind=kind), all_images(shape)
    known = mask_of(order_of(shape)[5:], shape)
    x = images[103]
    fits = ((images == x) | (known == 0)).flatten(1).all(1)
    conditional = model.log_prob(images).masked_fill(~fits, -math.inf).softmax(0)
    weights = 2 ** torch.arange(8).flip(0)

    def distance(drawn: Tensor) -> float:
        shares = torch.bincount((drawn.flatten(1).long() * weights).sum(1), minlength=256) / len(drawn)
        return (shares - conditional).abs().sum().item() / 2

    n = 5000
    drawn = model.complete(x.expand(n, *shape), known, generator=seeded_generator(6))
    blind = torch.where(known.bool(), x, model.sample(n, generator=seeded_generator(6)))
    assert distance(drawn) < 0.12
    assert distance(drawn) < 0.5 * distance(blind)


@torch.no_grad()
@pytest.mark.parametrize(("scales", "factor"), [(3, 2), (2, 3)])
@every_kind
def test_candidates_are_weighed_by_the_known_pixels_of_every_scale_once(kind, scales, factor):
    """Where all is known the weight is the density, and it adds up over disjoint masks."""
    shape = (2, 3, 5)
    model, x = random_scales(shape, kind=kind, scales=scales, factor=factor), torch.randint(2, (6, 2, 3, 5)).double()

    def log_weights(known: Tensor) -> Tensor:
        total = x.new_zeros(6)
        for _ in model._draw(torch.rand_like(x), 1.0, x, known.bool().expand(6, -1, -1, -1), total):
            pass
        return total

    torch.testing.assert_close(log_weights(torch.ones(1, 1, 3, 5)), model.log_prob(x))
    prefix = mask_of(order_of(shape, scales, factor)[:9], shape)
    torch.testing.assert_close(log_weights(prefix), (model.log_prob_map(x) * prefix).flatten(1).sum(1))


@pytest.mark.parametrize("count", [5, -4])
def test_completions_grow_pixel_by_pixel_in_its_order(count):
    """Both where the first of its order are known and where the last ones are."""
    shape, model = (2, 3, 4), random_scales((2, 3, 4))
    x, order = torch.randint(2, (3, *shape)).double(), order_of(shape)
    known = mask_of(order[:count] if count > 0 else order[count:], shape)
    steps = list(model.complete_steps(x, known, generator=seeded_generator(2)))
    assert len(steps) == 12
    assert torch.equal(steps[-1], model.complete(x, known, generator=seeded_generator(2)))
    for done, step in enumerate(steps, 1):
        seen = (mask_of(order[:done], shape) + known) > 0
        assert torch.equal(step, torch.where(seen, steps[-1], torch.zeros_like(step)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": 1}, "scales and factor must be at least 2, got 1 and 2"),
        ({"factor": 1}, "scales and factor must be at least 2, got 2 and 1"),
        ({"channels": 32}, "channels must be a multiple of the 3 colours"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"kind": "row_by_row"}, "row_lstm, diagonal_bilstm"),
        ({"kernel_size": 1}, "kernel_size must be odd and at least 3, got 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model("multiscale_pixel_rnn", (3, 4, 4), **arguments)
