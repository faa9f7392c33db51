"""RNADE: a density on [0, 1]^D whose conditionals see every pixel before them, and samples that follow it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gdm_core import build_model, likelihood
from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.autoregressive import rnade
from gdm_core.randomness import seeded_generator
from gdm_core.training import train
from tests.autoregressive_cases import Images, chi_square_bound

LOGITS = torch.linspace(-36, 36, 40_001, dtype=torch.float64)
LINE, LINE_WIDTHS = torch.sigmoid(LOGITS), torch.sigmoid(LOGITS) * torch.sigmoid(-LOGITS) * 72 / 40_000
PAIR, BINS = (1, 1, 2), 8
every_activation = pytest.mark.parametrize("activation", ["relu", "sigmoid"])


def random_rnade(shape: tuple, scale: float = 1.0, activation: str = "relu", **sizes: int) -> GenerativeModel:
    """In float64, its parameters stretched, so that its pixels depend on each other markedly."""
    sizes = {"hidden_units": 40, "components": 2, **sizes}
    model = build_model("rnade", shape, activation=activation, **sizes).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3).mul_(scale)
    return model


# --- densities ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 100.0])
def test_one_pixel_integrates_to_one(scale):
    model = random_rnade((1, 1, 1), scale)
    log_p = model.log_prob(LINE.view(-1, 1, 1, 1))
    assert (log_p.exp() * LINE_WIDTHS).sum().item() == pytest.approx(1, abs=1e-9)


def squares(n: int = 400) -> Tensor:
    """The midpoints of n x n squares of [0, 1]^2, as images."""
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.cartesian_prod(middle, middle).view(-1, *PAIR)


@torch.no_grad()
@every_activation
def test_two_pixels_integrate_to_one(activation):
    """On a grid that is dense towards the edges, in both pixels."""
    model, step = random_rnade(PAIR, 1.5, activation), 60
    points, widths = LINE[::step], step * LINE_WIDTHS[::step]
    grid, areas = torch.cartesian_prod(points, points).view(-1, *PAIR), torch.cartesian_prod(widths, widths).prod(1)
    density = torch.cat([model.log_prob(x) for x in grid.split(50_000)]).exp()
    assert (density * areas).sum().item() == pytest.approx(1, abs=1e-9)
    assert (density.max() / density[areas > 1e-5].min()) > 3


@torch.no_grad()
@every_activation
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_conditionals_integrate_to_one_and_are_the_map(scale, activation):
    model = random_rnade((2, 2, 2), scale, activation)
    x = torch.rand(3, 2, 2, 2, dtype=torch.float64)
    for row, column in itertools.product(range(2), range(2)):
        total = (model.conditional(x, row, column, LINE).exp() * LINE_WIDTHS).sum(-1)
        torch.testing.assert_close(total, torch.ones(3, 2).double())
        for image in x:
            found = model.conditional(image[None], row, column, image[:, row, column])[0].diagonal().sum()
            torch.testing.assert_close(found, model.log_prob_map(image[None])[0, 0, row, column])


# --- dependence and the two forms of the network -----------------------------------------------------------------


@every_activation
def test_logits_depend_on_every_predecessor_and_on_nothing_else(activation):
    model, shape = random_rnade((2, 2, 3), activation=activation), (2, 2, 3)
    x = torch.rand(1, *shape, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0].abs().sum(-1), x)[:, :, :, 0]
    in_order = slopes.permute(1, 2, 0, 4, 5, 3).reshape(12, 12)  # (logit, value)
    torch.testing.assert_close(in_order != 0, torch.ones_like(in_order).tril(-1).bool())


def learnt(model: GenerativeModel, x: Tensor) -> list[Tensor]:
    """The loss and its gradients."""
    loss = model.loss(Batch(x))["loss"]
    return [loss, *torch.autograd.grad(loss, list(model.parameters()))]


@every_activation
@pytest.mark.parametrize("block", [1, 5, 11, 12])
def test_blocks_change_neither_the_density_nor_its_gradients(block, activation, monkeypatch):
    model, x = random_rnade((2, 2, 3), activation=activation), torch.rand(4, 2, 2, 3).double()
    whole = learnt(model, x)
    monkeypatch.setattr(rnade, "BLOCK", block)
    for found, expected in zip(learnt(model, x), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_hidden_units_of_a_long_image_are_not_kept():
    kept, model = 0, build_model("rnade", (1, 20, 20), hidden_units=200, components=1)

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 0 if any(tensor.numel() == parameter.numel() for parameter in model.parameters()) else tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.loss(Batch(torch.rand(16, 1, 20, 20)))["loss"].backward()
    assert kept < 16 * 400 * 200 / 4  # a quarter of them


@torch.no_grad()
@every_activation
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 3, 2), (1, 9, 9)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_incremental_logits_are_those_of_the_whole_image(shape, activation, dtype, tolerance):
    model = random_rnade(shape, activation=activation).to(dtype)
    x = torch.rand(5, *shape, dtype=dtype)
    network, logits = model.incremental(5), torch.empty_like(model.logits(x))
    for row in range(shape[1]):
        network.begin_row()
        for column, colour in itertools.product(range(shape[2]), range(shape[0])):
            logits[:, colour, row, column] = network.logits(column, colour)
            network.write(x[:, colour, row, column], column, colour)
    torch.testing.assert_close(logits, model.logits(x), rtol=0, atol=tolerance)


@torch.no_grad()
@every_activation
def test_incremental_sampling_is_plain_sampling(activation):
    """The whole network on the whole image for every value gives the same image, to the last bits.

    Not to the very last: a matrix product sums in an order that depends on how many rows it has.
    """
    model = random_rnade((2, 3, 3), activation=activation)
    uniforms = draw_uniforms(model, 6, None, 0.8, seeded_generator(3))
    x = torch.zeros_like(uniforms)
    for row, column, colour in itertools.product(range(3), range(3), range(2)):
        place = (slice(None), colour, row, column)
        x[place] = model.distribution.sample(model.logits(x)[place], uniforms[place], 0.8)
    drawn = model.sample(6, temperature=0.8, generator=seeded_generator(3))
    torch.testing.assert_close(drawn, x, rtol=0, atol=1e-12)


# --- samples and completions -------------------------------------------------------------------------------------


def in_bins(x: Tensor) -> Tensor:
    """How many pairs fall into each of BINS x BINS squares."""
    codes = (x.flatten(1) * BINS).long().clamp(max=BINS - 1)
    return torch.bincount(codes[:, 0] * BINS + codes[:, 1], minlength=BINS**2).double()


def statistic(counts: Tensor, shares: Tensor) -> tuple[float, float]:
    """Chi-square and its bound; bins expected fewer than 5 times are put together."""
    expected = shares / shares.sum() * counts.sum()
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    expected = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True).clamp_min(1e-9)])
    return ((counts - expected) ** 2 / expected).sum().item(), chi_square_bound(len(counts))


@torch.no_grad()
@every_activation
def test_samples_follow_the_density(activation):
    model = random_rnade(PAIR, activation=activation)
    density = torch.cat([model.log_prob(x) for x in squares().split(40_000)]).exp().view(BINS, 50, BINS, 50)
    drawn = model.sample(100_000, generator=seeded_generator(5))
    assert model.check_images(drawn) is drawn
    found, bound = statistic(in_bins(drawn), density.sum((1, 3)).flatten())
    assert found < bound


@torch.no_grad()
def test_completing_a_prefix_follows_the_conditional():
    model, first = random_rnade(PAIR), 0.8125
    middle = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    x = torch.tensor([first, 0.0]).double().view(1, *PAIR)
    shares = torch.zeros(BINS, BINS).double()
    shares[int(first * BINS)] = model.conditional(x, 0, 1, middle)[0, 0].exp().view(BINS, -1).sum(1)
    known = torch.tensor([1.0, 0.0]).view(1, *PAIR)
    assert model.completion_is_exact(known)
    drawn = model.complete(x.expand(50_000, *PAIR), known, generator=seeded_generator(6))
    assert (drawn[..., 0] == first).all()
    found, bound = statistic(in_bins(drawn), shares.flatten())
    assert found < bound


@torch.no_grad()
def test_completing_the_rest_comes_near_the_conditional():
    """The second pixel known: candidates weighted by its density come nearer than first draws."""
    model, second = random_rnade(PAIR, scale=1.5), 0.3125
    middle = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    pairs = torch.stack([middle, torch.full_like(middle, second)], 1).view(-1, *PAIR)
    shares = torch.zeros(BINS, BINS).double()
    shares[:, int(second * BINS)] = model.log_prob(pairs).exp().view(BINS, -1).sum(1)
    known = torch.tensor([0.0, 1.0]).view(1, *PAIR)
    assert not model.completion_is_exact(known)
    drawn = model.complete(pairs[:1].expand(20_000, *PAIR), known, generator=seeded_generator(6))
    blind = torch.stack([model.sample(20_000, generator=seeded_generator(6))[..., 0], drawn[..., 1]], -1)
    shares = (shares / shares.sum()).flatten()
    near, far = ((in_bins(x) / 20_000 - shares).abs().sum().item() / 2 for x in (drawn, blind))
    assert near < 0.1 and near < 0.5 * far


# --- learning ----------------------------------------------------------------------------------------------------


def test_it_learns_that_two_pixels_are_equal():
    """x_2 = x_1 up to a noise of 0.02: a model of independent pixels has at most log p = 0."""
    first = torch.rand(400, 1, 1, 1, generator=seeded_generator(0))
    noise = 0.02 * torch.randn(400, 1, 1, 1, generator=seeded_generator(1))
    images = torch.cat([first, (first + noise).clamp(0, 1)], 3)
    model = build_model("rnade", PAIR, hidden_units=30, components=5, levels=17)
    list(train(model, Images(images), TrainingConfig(epochs=15, batch_size=20, learning_rate=0.02)))
    record = likelihood(model, images)
    assert record.mean > 1
    assert (record.kind, record.pixels, record.levels) == ("exact", "real", 17)
    assert record.bits_per_dimension() == pytest.approx((2.8332133 - record.mean / 2) / 0.6931472, abs=1e-6)


def test_half_precision_autocast_leaves_the_sums_in_float32():
    model, x = build_model("rnade", (1, 10, 10), hidden_units=9), torch.rand(6, 1, 10, 10)
    expected = model.log_prob(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.log_prob(x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["hidden_units", "components"])
def test_bad_sizes_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        build_model("rnade", PAIR, **{name: 0})


def test_so_is_an_activation_without_the_registry():
    with pytest.raises(ValueError, match="activation must be one of relu, sigmoid, got 'tanh'"):
        rnade.RNADE(PAIR, activation="tanh")
