"""MADE: masks that follow from degrees, members that are densities, their average, and what is drawn from it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
import torch
from torch import Tensor

from gdm_core import build_model
from gdm_core.contract import Batch, GenerativeModel
from gdm_core.layers.raster_model import choose
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.models.autoregressive.made import MADE
from gdm_core.randomness import seeded_generator
from tests.autoregressive_cases import all_images, chi_square, pixels_of, slopes_in_order_of_values

VARIANTS = {
    "one layer": {"hidden_units": (12,)},
    "three layers": {"hidden_units": (9, 5, 7)},
    "direct": {"hidden_units": (3,), "direct_connections": True},
    "orderings": {"hidden_units": (12,), "orderings": 3},
    "masks": {"hidden_units": (6, 9), "masks": 3},
    "both": {"hidden_units": (12, 5), "orderings": 2, "masks": 2, "direct_connections": True, "ensemble_seed": 5},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def made(shape: tuple, levels: int = 2, scale: float = 1.5, **arguments: object) -> GenerativeModel:
    model = build_model("made", shape, **pixels_of(levels), **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5).mul_(scale)
    return model


def logits_by_the_paper(model: GenerativeModel, x: Tensor, member: int) -> Tensor:
    """Each unit by its sum over the units that its degree allows, in Python loops, (N, D * parameters)."""
    inputs, *hidden = [degrees.tolist() for degrees in model.degrees(member)]
    h, before = list(in_sequence(x).T), inputs
    v = h
    for layer, own in zip(model.hidden, hidden, strict=True):
        h = [
            (layer.bias[k] + sum(layer.weight[k, j] * h[j] for j in range(len(h)) if before[j] <= own[k])).relu()
            for k in range(len(own))
        ]
        before = own
    y = []
    for row in range(len(model.output.bias)):
        place = inputs[row // model.distribution.parameters]
        total = model.output.bias[row] + torch.zeros(len(x))
        total = total + sum(model.output.weight[row, k] * h[k] for k in range(len(h)) if before[k] < place)
        if model.direct is not None:
            total = total + sum(model.direct.weight[row, j] * v[j] for j in range(len(v)) if inputs[j] < place)
        y.append(total)
    return torch.stack(y, 1)


@torch.no_grad()
@every_variant
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 3), 2), ((2, 1, 3), 3)])
def test_logits_are_the_sums_that_degrees_allow(variant: str, shape: tuple, levels: int) -> None:
    model = made(shape, levels, **VARIANTS[variant])
    x = all_images(shape, levels)[:: 31 if levels > 2 else 5]
    for member in range(model.number_of_members):
        expected = logits_by_the_paper(model, x, member).unflatten(1, (math.prod(shape), -1))
        torch.testing.assert_close(model.logits(x, member), in_images(expected, shape))


@pytest.mark.parametrize(
    ("hidden_units", "direct"), [((400,), False), ((300, 300), False), ((300, 300), True), ((1,), True)]
)
@pytest.mark.parametrize(("shape", "levels"), [((1, 3, 3), 2), ((2, 2, 2), 3), ((3, 1, 2), 3)])
def test_logits_depend_on_every_predecessor_in_their_order_and_on_nothing_else(
    hidden_units: tuple, shape: tuple, levels: int, direct: bool
) -> None:
    """The Jacobian with rows and columns in the member's order is strictly lower triangular, and full there.

    Through one hidden unit hardly anything is seen: there the direct connections have to reach every predecessor.
    """
    model = made(shape, levels, hidden_units=hidden_units, orderings=3, masks=2, direct_connections=direct)
    assert len(model.orders) == 6
    for member, order in enumerate(model.orders):
        slopes = slopes_in_order_of_values(partial(model.logits, member=member), shape, order)
        torch.testing.assert_close(slopes != 0, torch.ones_like(slopes).tril(-1).bool())


@torch.no_grad()
@every_variant
@pytest.mark.parametrize(("shape", "levels"), [((1, 3, 3), 2), ((2, 1, 2), 4)])
def test_the_density_is_the_average_of_normalised_ones(variant: str, shape: tuple, levels: int) -> None:
    model, images = made(shape, levels, **VARIANTS[variant]), all_images(shape, levels)
    single = torch.stack([
        model.distribution.log_prob(model.logits(images, member), images).flatten(1).sum(1)
        for member in range(model.number_of_members)
    ])  # fmt: skip
    torch.testing.assert_close(single.logsumexp(1), torch.zeros(len(single)).double())
    torch.testing.assert_close(model.log_prob(images).exp(), single.exp().mean(0))
    torch.testing.assert_close(model.log_prob_map(images).flatten(1).sum(1), single.mean(0))
    if len(single) > 1:
        assert (model.log_prob(images) - single.mean(0)).mean() > 0.05
    else:
        assert torch.equal(model.orders, torch.arange(math.prod(shape))[None])


@torch.no_grad()
def test_the_average_of_logits_would_not_be_a_density() -> None:
    """What the average of probabilities is not: it would not sum to one."""
    model, images = made((1, 2, 3), hidden_units=(30,), orderings=4), all_images((1, 2, 3))
    logits = torch.stack([model.logits(images, member) for member in range(4)]).mean(0)
    total = model.distribution.log_prob(logits, images).flatten(1).sum(1).exp().sum()
    assert abs(total - 1) > 0.01


@torch.no_grad()
def test_conditionals_are_the_mean_of_the_members_probabilities() -> None:
    model, x = made((2, 1, 3), 3, **VARIANTS["both"]), all_images((2, 1, 3), 3)[::50]
    values = torch.tensor([0, 0.5, 1]).double()
    found = model.conditional(x, 0, 1, values).exp()
    expected = torch.stack([model.logits(x, m)[:, :, 0, 1].softmax(-1) for m in range(4)]).mean(0)
    torch.testing.assert_close(found, expected)


# --- members -----------------------------------------------------------------------------------------------------


def test_a_rebuilt_model_has_the_same_orders_and_masks() -> None:
    model, again = (made((1, 3, 3), **VARIANTS["both"]) for _ in range(2))
    other = made((1, 3, 3), **VARIANTS["both"] | {"ensemble_seed": 6})
    assert not [name for name in model.state_dict() if "degrees" in name or "orders" in name]
    again.load_state_dict(model.state_dict())
    other.load_state_dict(model.state_dict())
    x = all_images((1, 3, 3))[::7]
    assert torch.equal(model.log_prob(x), again.log_prob(x))
    assert not torch.allclose(model.log_prob(x), other.log_prob(x))


def test_every_ordering_goes_with_every_mask() -> None:
    model = made((1, 3, 3), hidden_units=(8,), orderings=3, masks=2)
    members = {(tuple(model.orders[m].tolist()), tuple(model.degrees(m)[1].tolist())) for m in range(6)}
    assert len(members) == 6
    assert len({order for order, _ in members}) == 3 and len({degrees for _, degrees in members}) == 2
    assert model.orders[0].tolist() == list(range(9))


def test_kept_masks_are_those_of_the_member_and_the_precision_asked_for() -> None:
    model, images = made((1, 2, 3), **VARIANTS["both"]), all_images((1, 2, 3)).double()
    for member in (0, 3, 3, 1, 0):
        expected = logits_by_the_paper(model, images, member)
        torch.testing.assert_close(in_sequence(model.logits(images, member)[..., 0]), expected)
    assert model.float().logits(images.float()).dtype == torch.float32


def test_masks_are_those_of_the_member_whoever_asks_in_between() -> None:
    """Before each line of the call another thread may have asked for another member: done here by a tracer."""
    model = made((1, 2, 3), **VARIANTS["both"])
    expected = [[mask.clone() for mask in model.connections(member)] for member in range(4)]
    interrupted = []

    def interrupt(frame: FrameType, event: str, argument: object) -> Callable | None:
        if frame.f_code is not MADE.connections.__code__:
            return None
        if event == "line":
            interrupted.append(frame.f_lineno)
            model.connections(3)
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        found = [model.connections(member) for member in (3, 0, 0, 3, 1)]
    finally:
        sys.settrace(before)
    assert len(set(interrupted)) > 3
    for masks, member in zip(found, (3, 0, 0, 3, 1), strict=True):
        assert all(torch.equal(mask, wanted) for mask, wanted in zip(masks, expected[member], strict=True))


def test_a_model_that_has_scored_without_gradients_still_learns() -> None:
    model, images = made((1, 2, 3), **VARIANTS["one layer"]), all_images((1, 2, 3)).double()
    with torch.inference_mode():
        model.log_prob(images)
    model.loss(Batch(images))["loss"].backward()
    assert model.output.weight.grad.abs().sum() > 0


def test_each_batch_is_learnt_by_one_member_drawn_from_the_global_state() -> None:
    model, x = made((1, 3, 3), hidden_units=(12,), orderings=2, masks=2), all_images((1, 3, 3))[::9]
    members = [-model.member_log_prob_map(x, m).sum() / len(x) for m in range(4)]
    torch.manual_seed(0)
    losses = [model.loss(Batch(x))["loss"] for _ in range(400)]
    counts = torch.tensor([sum(torch.equal(loss, member) for loss in losses) for member in members])
    assert counts.sum() == 400 and counts.min() > 60
    torch.manual_seed(0)
    assert losses[:9] == [model.loss(Batch(x))["loss"] for _ in range(9)]


def test_one_member_needs_no_randomness() -> None:
    model, x = made((1, 3, 3), hidden_units=(12,)), all_images((1, 3, 3))[::9]
    state = torch.get_rng_state()
    torch.testing.assert_close(model.loss(Batch(x))["loss"], -model.log_prob(x).mean())
    assert torch.equal(state, torch.get_rng_state())


# --- sampling ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_sample(model: GenerativeModel, n: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Sampling by the definition: the whole network on every image, for every value in the order of its member."""
    uniforms, share = draw_uniforms(model, n, None, temperature, generator), 1 / model.number_of_members
    members = [0] * n
    if model.number_of_members > 1:
        members = (torch.rand(n, 1, generator=generator, dtype=torch.float64)[:, 0] / share).long().tolist()
    x, noise, width = torch.zeros_like(uniforms), in_sequence(uniforms), model.data_shape[2]
    for image, member in enumerate(members):
        for place in model.orders[member].tolist():
            pixel, colour = divmod(place, model.data_shape[0])
            logits = model.logits(x[image : image + 1], member)[0, colour, pixel // width, pixel % width]
            value = model.distribution.sample(logits, noise[image, place], temperature)
            x[image, colour, pixel // width, pixel % width] = value
    return x


@every_variant
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("shape", "levels"), [((1, 4, 3), 2), ((3, 2, 2), 3)])
def test_incremental_sampling_is_plain_sampling(variant: str, temperature: float, shape: tuple, levels: int) -> None:
    model = made(shape, levels, scale=1.0, **VARIANTS[variant])
    plain = plain_sample(model, 9, temperature, seeded_generator(3))
    assert torch.equal(model.sample(9, temperature=temperature, generator=seeded_generator(3)), plain)
    assert plain.unique().numel() > 1


def test_each_hidden_unit_is_computed_once() -> None:
    """It changes at the write of the input that its degree ends with, and at no other."""
    model = made((1, 3, 4), hidden_units=(300, 300), orderings=2)
    network = model.incremental(6, torch.ones(6, dtype=torch.long)).networks[0]
    degrees = model.degrees(1)[1:]
    for written in range(1, 13):
        before = [h.clone() for h in network.h]
        network.write(torch.rand(6).double(), 0, 0)
        for h, old, degree in zip(network.h, before, degrees, strict=True):
            changed = (h != old).any(1)
            assert (degree[changed] == written).all()
            assert not old[degree >= written].any()
            assert changed.any() or written == 12


# --- completion --------------------------------------------------------------------------------------------------


def conditional_of(model: GenerativeModel, images: Tensor, x: Tensor, known: Tensor) -> Tensor:
    """log p(image | what is known of x), enumerated, (images,)."""
    fits = ((images == x) | ~known).flatten(1).all(1)
    return model.log_prob(images).masked_fill(~fits, -math.inf).log_softmax(0)


@torch.no_grad()
def test_an_exact_completion_weighs_the_orders_by_what_is_known() -> None:
    """Three orders that begin with the same two pixels, and differ in how likely they find them."""
    model, images = made((1, 2, 2), scale=2.0, hidden_units=(12,), orderings=3), all_images((1, 2, 2))
    model.orders = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2], [0, 1, 3, 2]])
    known = (torch.arange(4) < 2).view(1, 1, 2, 2)
    assert model.completion_is_exact(known) and not model.completion_is_exact(~known)
    for x in images[[8, 12]]:
        expected = conditional_of(model, images, x, known)
        members = torch.stack([model.member_log_prob_map(images, m).flatten(1).sum(1) for m in range(3)])
        unweighted = members.masked_fill(expected.isinf(), -math.inf).softmax(1).mean(0)
        assert (unweighted - expected.exp()).abs().max() > 0.03, "orders of equal weight tell nothing"
        drawn = model.complete(x.expand(30_000, 1, 2, 2), known, generator=seeded_generator(1))
        statistic, bound = chi_square(drawn, images, expected)
        assert statistic < bound


@torch.no_grad()
@pytest.mark.parametrize("variant", ["orderings", "masks", "both"])
def test_completing_any_mask_comes_near_the_enumerated_conditional(variant: str) -> None:
    model, images = made((1, 3, 2), scale=1.0, **VARIANTS[variant]), all_images((1, 3, 2))
    known = (torch.arange(6) % 2 == 1).view(1, 1, 3, 2)
    assert not model.completion_is_exact(known)
    x = images[37]
    expected = conditional_of(model, images, x, known).exp()
    drawn = model.complete(x.expand(20_000, -1, -1, -1), known, generator=seeded_generator(6))
    blind = torch.where(known, x, model.sample(20_000, generator=seeded_generator(6)))
    codes = 2 ** torch.arange(5, -1, -1)
    near, far = (
        ((some.flatten(1).long() * codes).sum(1).bincount(minlength=64) / 20_000 - expected).abs().sum() / 2
        for some in (drawn, blind)
    )
    assert near < 0.08
    assert near < 0.5 * far


def test_a_choice_among_equals_is_uniform() -> None:
    uniforms = ((torch.arange(9000).double() + 0.5) / 9000)[:, None]
    assert choose(torch.zeros(9000, 3).double(), uniforms).bincount().tolist() == [3000] * 3


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_units": ()}, "hidden_units must name at least one layer"),
        ({"hidden_units": (5, 0)}, "at least 1 unit, got \\(5, 0\\)"),
        ({"orderings": 0}, "orderings and masks must be at least 1, got 0 and 1"),
        ({"masks": -1}, "orderings and masks must be at least 1, got 1 and -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("made", (1, 3, 3), **arguments)


def test_layers_can_be_given_as_text() -> None:
    assert [layer.out_features for layer in build_model("made", (1, 3, 3), hidden_units="7,5").hidden] == [7, 5]
