"""Laws of autoregressive models: normalised densities, causal dependence, and sampling that follows the density."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, ExactLikelihood, GenerativeModel, TrainingConfig, capabilities
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.autoregressive.independent_bernoulli import IndependentBernoulli
from gdm_core.models.autoregressive.pixel_cnn import IncrementalPixelCNN, PixelCNN
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.training import train

GREY_BINARY, GREY_LEVELS, COLOUR, EIGHT_BIT = (1, 3, 3), (1, 2, 2), (3, 1, 2), (1, 1, 2)

# Every model of the family, built small for an image shape and a number of levels; one line each.
BUILDERS: dict[str, Callable[[tuple, int], GenerativeModel]] = {
    "pixel_cnn": lambda shape, levels: build_model("pixel_cnn", shape, channels=4, blocks=2, **pixels_of(levels)),
    "pixel_cnn with places": lambda shape, levels: build_model(
        "pixel_cnn", shape, channels=3, blocks=1, position_bias=True, **pixels_of(levels)
    ),
    "nade": lambda shape, levels: build_model("nade", shape, hidden_units=6),
    "independent_bernoulli": lambda shape, levels: build_model("independent_bernoulli", shape),
}
BINARY_ONLY = {"nade", "independent_bernoulli"}
LEVEL_MODELS = [name for name in BUILDERS if name not in BINARY_ONLY]


def pixels_of(levels: int) -> dict:
    return {"pixels": "binary"} if levels == 2 else {"pixels": "levels", "levels": levels}


def random_model(name: str, shape: tuple, levels: int = 2, scale: float = 1.5) -> GenerativeModel:
    """A model in float64 whose parameters are stretched, so that its pixels depend on each other markedly."""
    model = BUILDERS[name](shape, levels).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3).mul_(scale)
    return model


def all_images(shape: tuple, levels: int = 2) -> Tensor:
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    return torch.cartesian_prod(*[values] * math.prod(shape)).view(-1, *shape)


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
    torch.testing.assert_close(surprise.flatten(1).sum(1), model.log_prob(x))


@torch.no_grad()
@pytest.mark.parametrize("name", BUILDERS)
def test_log_prob_is_an_image_alone(name):
    model = random_model(name, GREY_BINARY)
    x = all_images(GREY_BINARY)[::50]
    torch.testing.assert_close(torch.cat([model.log_prob(image[None]) for image in x]), model.log_prob(x))


def test_loss_is_the_mean_negative_log_likelihood():
    model = random_model("pixel_cnn", GREY_BINARY)
    x = all_images(GREY_BINARY)[::7]
    torch.testing.assert_close(model.loss(Batch(x))["loss"], -model.log_prob(x).mean())


def test_dropout_acts_on_the_loss_in_training_and_never_on_the_density():
    model = random_model("pixel_cnn", GREY_BINARY).train()
    model.dropout = 0.5
    x = all_images(GREY_BINARY)[::7]
    assert model.loss(Batch(x))["loss"] != model.loss(Batch(x))["loss"]
    assert torch.equal(model.log_prob(x), model.log_prob(x))


# --- dependence --------------------------------------------------------------------------------------------------


def receptive_fields(shape: tuple, kernel_size: int, blocks: int) -> dict[tuple, set]:
    """What each value (colour, row, column) of a PixelCNN sees, by following its layers as sets."""
    colours, height, width = shape
    places = list(itertools.product(range(colours), range(height), range(width)))

    def earlier(row: int, column: int, reach: int) -> Iterator[tuple[int, int]]:
        for r, c in itertools.product(range(row - reach, row + 1), range(column - reach, column + reach + 1)):
            if (r, c) < (row, column) and r >= 0 and 0 <= c < width:
                yield r, c

    fields = {}
    for g, row, column in places:
        seen = {(k, r, c) for r, c in earlier(row, column, kernel_size // 2) for k in range(colours)}
        fields[g, row, column] = seen | {(k, row, column) for k in range(g)}
    for _ in range(blocks):
        before = fields
        fields = {
            (g, row, column): set().union(
                *(before[k, row, column] for k in range(g + 1)),
                *(before[k, r, c] for r, c in earlier(row, column, 1) for k in range(colours)),
            )
            for g, row, column in places
        }
    return fields


@pytest.mark.parametrize(
    ("shape", "kernel_size", "blocks"), [((1, 6, 9), 3, 2), ((1, 5, 5), 7, 0), ((3, 3, 4), 3, 1), ((2, 4, 3), 1, 2)]
)
def test_pixel_cnn_sees_exactly_its_receptive_field(shape, kernel_size, blocks):
    """With positive parameters no two paths cancel and no ReLU is shut: a slope is zero only where there is no path."""
    model = PixelCNN(shape, channels=6, blocks=blocks, kernel_size=kernel_size).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_().add_(0.01)
    slopes = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0, ..., 0], torch.ones(1, *shape).double())
    for place, field in receptive_fields(shape, kernel_size, blocks).items():
        assert {tuple(index) for index in slopes[place][0].nonzero().tolist()} == field, place


def test_the_blind_spot_is_where_the_paper_has_it():
    fields = receptive_fields((1, 6, 9), 3, 2)
    assert (0, 4, 7) not in fields[0, 5, 2] and (0, 2, 5) in fields[0, 5, 2]  # to the right above, beyond the diagonal


@pytest.mark.parametrize("name", BUILDERS)
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


# --- sampling ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_sample(model: PixelCNN, n: int, temperature: float, generator: torch.Generator) -> Tensor:
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


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("shape", "levels"), CASES)
def test_incremental_sampling_is_plain_sampling(shape, levels, temperature):
    model = random_model("pixel_cnn", shape, levels, scale=1.0)
    plain = plain_sample(model, 7, temperature, seeded_generator(3))
    assert torch.equal(model.sample(7, temperature=temperature, generator=seeded_generator(3)), plain)
    assert plain.unique().numel() > 1


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), CASES)
def test_incremental_logits_in_single_precision(shape, levels):
    model = BUILDERS["pixel_cnn"](shape, levels).eval()
    x = torch.randint(levels, (5, *shape)) / (levels - 1)
    network, logits = IncrementalPixelCNN(model, 5), torch.empty_like(model.logits(x))
    for row in range(shape[1]):
        network.begin_row()
        for column, colour in itertools.product(range(shape[2]), range(shape[0])):
            logits[:, colour, row, column] = network.logits(column, colour)
            network.write(x[:, colour, row, column], column, colour)
    torch.testing.assert_close(logits, model.logits(x), rtol=0, atol=1e-5)


def chi_square_bound(cells: int) -> float:
    """About the 1 - 1e-5 quantile of chi-square with cells - 1 degrees of freedom (Wilson and Hilferty, 1931)."""
    freedom = cells - 1
    return freedom * (1 - 2 / (9 * freedom) + 4.265 * math.sqrt(2 / (9 * freedom))) ** 3


def chi_square(drawn: Tensor, images: Tensor, log_prob: Tensor) -> tuple[float, float]:
    """The statistic and its bound; cells expected fewer than 5 times are put together."""
    levels = images.unique().numel()
    weights = levels ** torch.arange(images[0].numel()).flip(0)
    counts = torch.bincount(
        ((drawn.flatten(1) * (levels - 1)).round().long() * weights).sum(1), minlength=len(images)
    ).double()
    expected = log_prob.exp() * len(drawn)
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    expected = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True).clamp_min(1e-9)])
    return ((counts - expected) ** 2 / expected).sum().item(), chi_square_bound(len(counts))


@pytest.mark.parametrize(
    ("name", "shape", "levels"),
    [(name, (1, 2, 3), 2) for name in BUILDERS] + [(name, c, 3) for name in LEVEL_MODELS for c in ((1, 2, 2), COLOUR)],
)
def test_samples_follow_the_density(name, shape, levels):
    model, images = random_model(name, shape, levels, scale=1.0), all_images(shape, levels)
    drawn = model.sample(100_000, generator=seeded_generator(5))
    with torch.no_grad():
        statistic, bound = chi_square(drawn, images, model.log_prob(images))
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


def test_steps_end_in_the_sample_and_grow_by_rows():
    model = random_model("pixel_cnn", (3, 4, 5), 3)
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


@pytest.mark.parametrize(("name", "shape", "levels"), [(name, (1, 2, 3), 2) for name in BUILDERS] + [
    (name, (1, 2, 2), 3) for name in LEVEL_MODELS])  # fmt: skip
def test_completing_a_prefix_follows_the_enumerated_conditional(name, shape, levels):
    model, images = random_model(name, shape, levels, scale=1.0), all_images(shape, levels)
    known = (torch.arange(shape[1] * shape[2]) < 2).view(1, 1, *shape[1:])
    x = images[len(images) // 2 + 1]
    with torch.no_grad():
        fits = (images.flatten(1)[:, :2] == x.flatten()[:2]).all(1)
        conditional = model.log_prob(images).masked_fill(~fits, -math.inf).log_softmax(0)
    drawn = model.complete(x.expand(50_000, *shape), known, generator=seeded_generator(6))
    statistic, bound = chi_square(drawn, images, conditional)
    assert statistic < bound


# --- learning ----------------------------------------------------------------------------------------------------


class Images:
    """Training data of fixed images."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows])


def test_every_parameter_of_pixel_cnn_learns():
    model = PixelCNN((1, 4, 4), channels=4, blocks=2)
    model.loss(Batch(torch.randint(2, (8, 1, 4, 4)).float()))["loss"].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_pixel_cnn_learns_two_images():
    """Checkerboards of both phases: the first pixel costs log 2, the others nothing."""
    board = (torch.arange(4)[:, None] + torch.arange(5)) % 2
    data = Images(torch.stack([board, 1 - board])[:, None].float().repeat(16, 1, 1, 1))
    model = PixelCNN((1, 4, 5), channels=8, blocks=1, dropout=0.0)
    for _ in train(model, data, TrainingConfig(epochs=25, batch_size=8, learning_rate=1e-2)):
        pass
    with torch.no_grad():
        assert -model.log_prob(data.images).mean().item() == pytest.approx(math.log(2), abs=0.05)


def test_independent_bernoulli_is_fitted_in_closed_form():
    images = (torch.rand(50, 2, 3, 3) < 0.3).float()
    model = IndependentBernoulli((2, 3, 3))
    steps = list(train(model, Images(images), TrainingConfig(epochs=5, batch_size=7)))
    assert len(steps) == 8  # one pass, however many epochs are asked for
    expected = (images.double().sum(0) + 1) / 52
    torch.testing.assert_close(model.logit.detach().double().sigmoid(), expected, rtol=1e-6, atol=0)


def test_independent_bernoulli_resumes_with_its_counts():
    images, config = (torch.rand(50, 1, 3, 3) < 0.4).float(), TrainingConfig(batch_size=7)
    whole = IndependentBernoulli((1, 3, 3))
    state = None
    for progress in train(whole, Images(images), config):
        if progress.step == 3:
            state = {**progress.state_dict(), "model": {k: v.clone() for k, v in whole.state_dict().items()}}
    resumed = IndependentBernoulli((1, 3, 3))
    list(train(resumed, Images(images), config, resume=state))
    assert torch.equal(resumed.logit, whole.logit)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_bad_images_are_named(name):
    model = BUILDERS[name]((1, 3, 3), 2)
    good = torch.zeros(2, 1, 3, 3)
    for bad, message in [
        (good[0], r"images must have shape \(N, 1, 3, 3\)"),
        (torch.zeros(2, 1, 3, 4), r"images must have shape \(N, 1, 3, 3\)"),
        (good + float("nan"), "NaN"),
        (good + 0.5, "exactly 0 or 1"),
        (good + 2, r"\[0, 1\]"),
    ]:
        for verb in (model.log_prob, model.log_prob_map, lambda x: model.complete(x, torch.ones(1, 1, 3, 3))):
            with pytest.raises(ValueError, match=message):
                verb(bad)


@pytest.mark.parametrize("name", LEVEL_MODELS)
def test_a_value_between_levels_is_named(name):
    with pytest.raises(ValueError, match="4 levels"):
        BUILDERS[name]((1, 2, 2), 4).log_prob(torch.full((1, 1, 2, 2), 0.5))


@pytest.mark.parametrize("name", BUILDERS)
def test_bad_requests_are_named(name):
    model = BUILDERS[name]((1, 3, 3), 2)
    x = torch.zeros(2, 1, 3, 3)
    for known in (torch.ones(3, 3), torch.ones(3, 1, 3, 3), torch.ones(1, 1, 3, 2), torch.full((1, 1, 3, 3), 0.5)):
        with pytest.raises(ValueError, match="known must"):
            model.complete(x, known)
    with pytest.raises(ValueError, match="n must be at least 1"):
        model.sample(0)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            model.sample(1, temperature=temperature)
    with pytest.raises(ValueError, match="labels"):
        model.sample(2, labels=torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, "channels must be at least the 3 colours"),
        ({"blocks": -1}, "blocks must be at least 0"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"dropout": 1.0}, "dropout must be at least 0"),
        ({"pixels": "levels", "levels": 1}, "levels must be between 2 and 256"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model("pixel_cnn", (3, 4, 4), **arguments)


def test_capabilities():
    expected = {"Samples", "SamplesStepwise", "ExactLikelihood", "PixelLikelihood", "Completes"}
    assert set(capabilities(PixelCNN)) == expected
    assert set(capabilities(IndependentBernoulli)) == expected - {"SamplesStepwise"}
    assert isinstance(PixelCNN((1, 2, 2)), ExactLikelihood)
