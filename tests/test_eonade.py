"""EoNADE: an unbiased loss over all orders, densities in any order, and completions of any mask."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from gdm_core import build_model
from gdm_core.contract import Batch, GenerativeModel
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.layers.value_sequence import in_sequence
from gdm_core.models.autoregressive import eonade
from gdm_core.randomness import seeded_generator
from tests.autoregressive_cases import all_images, chi_square, chi_square_bound, pixels_of, slopes_in_order_of_values

SHAPES = [((1, 2, 2), 2), ((3, 1, 1), 3), ((2, 1, 2), 2)]
layers = pytest.mark.parametrize("hidden_layers", [1, 3])


def made_eonade(shape: tuple, levels: int = 2, scale: float = 1.5, **arguments: object) -> GenerativeModel:
    model = build_model("eonade", shape, **pixels_of(levels), **{"hidden_units": 9, "orderings": 3} | arguments)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5).mul_(scale)
    return model


def every_order(dimensions: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(dimensions))))


# --- densities ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@layers
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_it_is_a_density_in_every_order(shape: tuple, levels: int, hidden_layers: int) -> None:
    model, images = made_eonade(shape, levels, hidden_layers=hidden_layers), all_images(shape, levels)
    totals = [model.log_prob_in_order(images, order).logsumexp(0) for order in every_order(math.prod(shape))]
    torch.testing.assert_close(torch.stack(totals), torch.zeros(len(totals)).double())


@torch.no_grad()
@layers
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_logits_in_an_order_are_those_given_what_comes_before(shape: tuple, levels: int, hidden_layers: int) -> None:
    """By the definition: one pass of the masked network for each value."""
    model, images = made_eonade(shape, levels, hidden_layers=hidden_layers), all_images(shape, levels)
    v = in_sequence(images)
    for order in every_order(math.prod(shape))[::5]:
        found = model.logits_in_order(images, order).permute(0, 2, 3, 1, 4).flatten(1, 3)
        for d, place in enumerate(order):
            known = torch.zeros_like(v).index_fill(1, order[:d], 1).bool()
            torch.testing.assert_close(found[:, place], model.logits_given(v, known)[:, place])


@layers
@pytest.mark.parametrize(("shape", "levels"), [((1, 3, 3), 2), ((1, 2, 3), 4), ((3, 1, 2), 3)])
def test_logits_depend_on_every_predecessor_in_their_order_and_on_nothing_else(
    shape: tuple, levels: int, hidden_layers: int
) -> None:
    model = made_eonade(shape, levels, hidden_units=60, hidden_layers=hidden_layers)
    for member, order in enumerate(model.orders):
        slopes = slopes_in_order_of_values(partial(model.logits, member=member), shape, order)
        torch.testing.assert_close(slopes != 0, torch.ones_like(slopes).tril(-1).bool())


@torch.no_grad()
def test_a_known_zero_is_not_an_unknown_value() -> None:
    model, v = made_eonade((1, 2, 2)), torch.zeros(1, 4).double()
    nothing, first = torch.zeros(1, 4).bool(), torch.tensor([[True, False, False, False]])
    assert (model.logits_given(v, nothing) - model.logits_given(v, first)).abs().min() > 1e-3
    other = torch.rand(1, 4).double()
    assert torch.equal(model.logits_given(v, nothing), model.logits_given(other, nothing))


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_the_density_is_the_average_of_its_orders(shape: tuple, levels: int) -> None:
    model, images = made_eonade(shape, levels, scale=2.5, orderings=5), all_images(shape, levels)
    single = torch.stack([model.log_prob_in_order(images, order) for order in model.orders])
    torch.testing.assert_close(model.log_prob(images).exp(), single.exp().mean(0))
    torch.testing.assert_close(model.log_prob_map(images).flatten(1).sum(1), single.mean(0))
    assert (model.log_prob(images) - single.mean(0)).mean() > 0.02


@torch.no_grad()
def test_one_order_is_a_density_of_its_own() -> None:
    model, images = made_eonade((1, 2, 2), orderings=1), all_images((1, 2, 2))
    torch.testing.assert_close(model.log_prob_map(images).flatten(1).sum(1), model.log_prob(images))
    torch.testing.assert_close(model.log_prob(images), model.log_prob_in_order(images, model.orders[0]))


@torch.no_grad()
def test_conditionals_are_the_mean_over_orders() -> None:
    model, x = made_eonade((2, 1, 2), 3), all_images((2, 1, 2), 3)[::10]
    values = torch.tensor([0, 0.5, 1]).double()
    expected = torch.stack([model.logits_in_order(x, order)[:, :, 0, 1].softmax(-1) for order in model.orders]).mean(0)
    torch.testing.assert_close(model.conditional(x, 0, 1, values).exp(), expected)


@torch.no_grad()
def test_orders_are_evaluated_a_bounded_number_of_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made_eonade((1, 5, 5), hidden_layers=2), torch.rand(6, 1, 5, 5).double().round()
    whole, rows, last_hidden = model.log_prob(x), [], model.last_hidden
    monkeypatch.setattr(eonade, "ROWS", 20)
    monkeypatch.setattr(model, "last_hidden", lambda a: rows.append(a[..., 0].numel()) or last_hidden(a))
    torch.testing.assert_close(model.log_prob(x), whole)
    assert max(rows) == 18 and sum(rows) == 3 * 25 * 6


def test_the_orders_follow_from_their_seed_and_are_not_stored() -> None:
    model, again, other = (made_eonade((1, 3, 3), ensemble_seed=seed) for seed in (4, 4, 5))
    assert torch.equal(model.orders, again.orders) and not torch.equal(model.orders, other.orders)
    assert "orders" not in model.state_dict() and len(model.orders.unique(dim=0)) == 3


# --- learning ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_loss_weighs_what_comes_after_the_known_in_the_order() -> None:
    model, images = made_eonade((1, 1, 3)), all_images((1, 1, 3))
    v = in_sequence(images)
    for order in every_order(3):
        for count in range(3):
            known = torch.zeros_like(v).index_fill(1, order[:count], 1).bool()
            log_prob = model.distribution.log_prob(model.logits_given(v, known), v)[:, order[count:]]
            found = model.order_agnostic_loss(images, order.expand(8, -1), torch.full((8,), count))
            torch.testing.assert_close(found, -log_prob.sum(1) * 3 / (3 - count))


@torch.no_grad()
@layers
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_the_loss_is_unbiased(shape: tuple, levels: int, hidden_layers: int) -> None:
    """Its mean over every order and every count is the mean over every order of -log p, image by image."""
    model, images = made_eonade(shape, levels, hidden_layers=hidden_layers), all_images(shape, levels)
    orders = every_order(math.prod(shape))
    exact = -torch.stack([model.log_prob_in_order(images, order) for order in orders]).mean(0)
    estimates = [
        model.order_agnostic_loss(images, order.expand(len(images), -1), torch.full((len(images),), count))
        for order in orders
        for count in range(math.prod(shape))
    ]
    assert torch.stack(estimates).std(0).min() > 0.1
    torch.testing.assert_close(torch.stack(estimates).mean(0), exact)


def test_orders_and_counts_of_each_image_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image's count and order, over many batches; and within a batch the counts are spread evenly."""
    model, x, drawn = made_eonade((1, 1, 3)), torch.zeros(5, 1, 1, 3).double(), []
    monkeypatch.setattr(
        model, "order_agnostic_loss", lambda x, orders, counts: drawn.append((orders, counts)) or torch.zeros(len(x))
    )
    for _ in range(4000):
        model.loss(Batch(x))
    orders, counts = (torch.stack(parts) for parts in zip(*drawn, strict=True))  # (4000, 5, 3), (4000, 5)
    cases = (orders * torch.tensor([9, 3, 1])).sum(2) * 3 + counts
    for image in range(5):
        seen = cases[:, image].unique(return_counts=True)[1].double()
        assert len(seen) == 18
        assert ((seen - 4000 / 18) ** 2 / (4000 / 18)).sum() < chi_square_bound(18)
    spread = torch.stack([(counts == count).sum(1) for count in range(3)])
    assert spread.min() == 1 and spread.max() == 2


@torch.no_grad()
def test_the_mean_of_many_losses_is_the_mean_over_orders() -> None:
    model, images = made_eonade((1, 2, 2)), all_images((1, 2, 2))
    exact = -torch.stack([model.log_prob_in_order(images, order) for order in every_order(4)]).mean()
    torch.manual_seed(0)
    losses = torch.stack([model.loss(Batch(images))["loss"] for _ in range(2000)])
    assert abs(losses.mean() - exact) < 4.5 * losses.std() / math.sqrt(2000)


# --- sampling and completion -------------------------------------------------------------------------------------


@torch.no_grad()
def plain_sample(model: GenerativeModel, n: int, temperature: float, generator: torch.Generator) -> Tensor:
    """The masked network anew for each value, each image in the order drawn for it."""
    uniforms = draw_uniforms(model, n, None, temperature, generator)
    members = (torch.rand(n, 1, generator=generator, dtype=torch.float64)[:, 0] * len(model.orders)).long()
    noise, v, known = in_sequence(uniforms), torch.zeros(n, model.dimensions).double(), torch.zeros(n, model.dimensions)
    for image, order in enumerate(model.orders[members]):
        for place in order:
            logits = model.logits_given(v[image : image + 1], known[image : image + 1].bool())[0, place]
            v[image, place] = model.distribution.sample(logits, noise[image, place], temperature)
            known[image, place] = 1
    channels, height, width = model.data_shape
    return v.view(n, height, width, channels).permute(0, 3, 1, 2)


@layers
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("shape", "levels"), [((1, 4, 3), 2), ((3, 2, 2), 3)])
def test_incremental_sampling_is_plain_sampling(
    shape: tuple, levels: int, temperature: float, hidden_layers: int
) -> None:
    model = made_eonade(shape, levels, scale=0.8, hidden_layers=hidden_layers)
    plain = plain_sample(model, 9, temperature, seeded_generator(3))
    assert torch.equal(model.sample(9, temperature=temperature, generator=seeded_generator(3)), plain)
    assert plain.unique().numel() > 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "levels", "known"),
    [
        ((1, 2, 3), 2, [0, 1, 0, 0, 1, 1]),
        ((2, 1, 2), 3, [0, 1]),
        ((1, 2, 2), 3, [0, 0, 1, 0]),
        ((1, 3, 3), 2, [1, 1, 0, 0, 0, 0, 0, 0, 0]),
        ((1, 3, 3), 2, [0, 1, 0, 0, 0, 1, 0, 0, 1]),
    ],
)
def test_completions_follow_the_conditional_in_orders_that_begin_with_the_known(
    shape: tuple, levels: int, known: list
) -> None:
    """Enumerated: the mean of the conditionals in the ensemble's orders, known values moved to the front of each."""
    model, images = made_eonade(shape, levels, scale=1.0), all_images(shape, levels)
    mask = torch.tensor(known).bool().view(1, 1, *shape[1:])
    flags = in_sequence(mask.expand(1, *shape))[0].tolist()
    x = images[2 * len(images) // 3]
    fits = ((images == x) | ~mask).flatten(1).all(1)
    conditionals = []
    for order in model.orders.tolist():
        first = [place for place in order if flags[place]] + [place for place in order if not flags[place]]
        log_prob = model.log_prob_in_order(images, torch.tensor(first))
        conditionals.append(log_prob.masked_fill(~fits, -math.inf).softmax(0))
    assert model.completion_is_exact(mask)
    drawn = model.complete(x.expand(50_000, *shape), mask, generator=seeded_generator(6))
    statistic, bound = chi_square(drawn, images, torch.stack(conditionals).mean(0).log())
    assert statistic < bound


@torch.no_grad()
def test_images_of_one_batch_are_completed_each_by_its_own_mask() -> None:
    model, x = made_eonade((1, 2, 2)), torch.rand(4, 1, 2, 2).double().round()
    known = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]]).view(4, 1, 2, 2)
    *steps, done = model.complete_steps(x, known, generator=seeded_generator(0))
    assert len(steps) == 3
    assert torch.equal(done[known == 1], x[known == 1])
    assert torch.equal(steps[0][2], x[2])


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hidden_units", "hidden_layers", "orderings"])
def test_bad_arguments_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        build_model("eonade", (1, 3, 3), **{name: 0})


def test_what_is_no_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^order must be a permutation of 0\.\.3, got \[0, 1, 2, 2\]"):
        made_eonade((1, 2, 2)).log_prob_in_order(torch.zeros(1, 1, 2, 2).double(), torch.tensor([0, 1, 2, 2]))
