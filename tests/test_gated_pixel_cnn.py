"""Gated PixelCNN: no blind spot, and the class-conditional one: each class a density, their mixture another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.layers.raster_sampling import Given, sample_in_raster_order
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.autoregressive.conditional_gated_pixel_cnn import ConditionalGatedPixelCNN
from gdm_core.models.autoregressive.gated_pixel_cnn import GatedPixelCNN
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import (
    COLOUR,
    EIGHT_BIT,
    GREY_BINARY,
    Images,
    all_images,
    chi_square,
    logits_one_by_one,
    order_of,
    pixels_of,
    random_model,
    slopes_in_order,
)

CLASSES = 3


def conditional_model(
    shape: tuple, levels: int = 2, scale: float = 1.5, **arguments: int
) -> ConditionalGatedPixelCNN:
    """In float64, parameters stretched and class biases random, so that the classes differ markedly."""
    sizes = {"classes": CLASSES, "channels": 6, "blocks": 2, "first_kernel_size": 3, **arguments}
    model = build_model("conditional_gated_pixel_cnn", shape, **sizes, **pixels_of(levels)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3).mul_(scale)
        for layer in model.network.layers:
            layer.class_bias.mul_(3)
    return model


def labels_like(label: int, n: int) -> Tensor:
    return torch.full((n,), label)


# --- what it sees ------------------------------------------------------------------------------------------------


def receptive_fields(shape: tuple, first_kernel_size: int, kernel_size: int, blocks: int) -> dict[tuple, set]:
    """What each value (colour, row, column) sees: both stacks of every layer followed as sets, colours together."""
    colours, height, width = shape
    places = list(itertools.product(range(height), range(width)))

    def window(row: int, column: int, above: int, below: int, left: int, right: int) -> Iterator[tuple[int, int]]:
        """The places from `above` rows higher to `below` rows higher, and from `left` to `right` columns."""
        for r, c in itertools.product(range(row - above, row - below + 1), range(column - left, column + right + 1)):
            if r >= 0 and 0 <= c < width:
                yield r, c

    reach = first_kernel_size // 2
    v = {(row, column): {*window(row, column, reach, 1, reach, reach)} for row, column in places}
    h = {place: {*window(*place, 0, 0, reach, -1)} | v[place] for place in places}
    reach = kernel_size // 2
    for _ in range(blocks):
        v = {place: set().union(*(v[seen] for seen in window(*place, reach, 0, reach, reach))) for place in places}
        h = {place: set().union(v[place], *(h[seen] for seen in window(*place, 0, 0, reach, 0))) for place in places}
    every = range(colours)
    return {
        (g, *place): {(k, *seen) for seen in h[place] for k in every} | {(k, *place) for k in range(g)}
        for g in every
        for place in places
    }


@pytest.mark.parametrize(
    ("shape", "first_kernel_size", "kernel_size", "blocks"),
    [((1, 6, 9), 3, 3, 2), ((1, 5, 8), 5, 3, 1), ((1, 6, 9), 7, 3, 0), ((1, 5, 7), 3, 5, 1), ((3, 4, 4), 3, 3, 1)],
)
def test_it_sees_exactly_its_receptive_field(shape, first_kernel_size, kernel_size, blocks):
    """By slopes at random places of a network whose rectifiers are all open."""
    model = GatedPixelCNN(shape, 6, blocks, kernel_size, first_kernel_size).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
        model.network.layers[0].out.bias.add_(100)
        model.network.head.bias.add_(1000)
    x = torch.rand(1, *shape, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0, ..., 0], x)
    for place, field in receptive_fields(shape, first_kernel_size, kernel_size, blocks).items():
        assert {tuple(index) for index in slopes[place][0].nonzero().tolist()} == field, place


@pytest.mark.parametrize(("shape", "levels"), [(GREY_BINARY, 2), ((2, 2, 3), 2), ((3, 2, 2), 3)])
def test_given_its_class_every_value_depends_on_every_predecessor_and_on_nothing_else(shape, levels):
    model, order = conditional_model(shape, levels, channels=24), order_of(shape, scales=1)
    for label in range(CLASSES):
        slopes = slopes_in_order(lambda x, y=label: model.class_logits(x, labels_like(y, len(x))), shape, order)
        torch.testing.assert_close(slopes != 0, torch.ones_like(slopes).tril(-1).bool())


def test_there_is_no_blind_spot():
    """Where a PixelCNN of as many layers is blind, to the right above, this one sees; and all that is in reach."""
    fields = receptive_fields((1, 6, 12), 3, 3, 4)
    assert (0, 4, 7) in fields[0, 5, 2]  # five columns to the right in the row above: each layer reaches one further
    everything = {(0, r, c) for r, c in itertools.product(range(6), range(12)) if (r, c) < (5, 4)}
    assert {(0, r, c) for _, r, c in everything if r > 0 and c < 9} <= fields[0, 5, 4]
    assert fields[0, 5, 4] <= everything


# --- learning ----------------------------------------------------------------------------------------------------


def test_dropout_acts_on_the_loss_in_training_and_never_on_the_density():
    for model in (random_model("gated_pixel_cnn", GREY_BINARY).train(), conditional_model(GREY_BINARY).train()):
        model.dropout = 0.5
        batch = Batch(all_images(GREY_BINARY)[::7], torch.arange(74) % CLASSES)
        assert model.loss(batch)["loss"] != model.loss(batch)["loss"]
        assert torch.equal(model.log_prob(batch.images), model.log_prob(batch.images))
        assert model.eval().loss(batch)["loss"] == model.loss(batch)["loss"]


def test_it_learns_two_images():
    """Checkerboards of both phases: the first pixel costs log 2, the others nothing."""
    board = (torch.arange(4)[:, None] + torch.arange(5)) % 2
    data = Images(torch.stack([board, 1 - board])[:, None].float().repeat(16, 1, 1, 1))
    model = GatedPixelCNN((1, 4, 5), channels=8, blocks=1)
    for _ in train(model, data, TrainingConfig(epochs=25, batch_size=8, learning_rate=1e-2)):
        pass
    with torch.no_grad():
        assert -model.log_prob(data.images).mean().item() == pytest.approx(math.log(2), abs=0.05)


class Labelled(Images):
    """Images that turn through the classes."""

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows], rows % CLASSES)


def test_it_learns_which_class_has_which_image():
    """Three images, one per class: given its class an image costs nothing, alone log 3; no other is of the class."""
    images = torch.randint(2, (CLASSES, 1, 4, 4)).float()
    data = Labelled(images.repeat(16, 1, 1, 1))
    model = ConditionalGatedPixelCNN((1, 4, 4), CLASSES, 8, blocks=1, dropout=0.0)
    for _ in train(model, data, TrainingConfig(epochs=25, batch_size=8, learning_rate=1e-2)):
        pass
    with torch.no_grad():
        assert model.log_prob_given_class(images).diag().mean().item() == pytest.approx(0, abs=0.1)
        assert model.log_prob(images).mean().item() == pytest.approx(-math.log(CLASSES), abs=0.1)
        assert model.class_log_prob(images).diag().exp().min() > 0.99
    labels = torch.arange(CLASSES).repeat(20)
    drawn = model.sample(60, labels, generator=seeded_generator(0))
    assert (drawn == images[labels]).flatten(1).all(1).double().mean() > 0.8


def test_the_loss_is_that_of_the_images_given_their_classes():
    model, x = conditional_model(GREY_BINARY), all_images(GREY_BINARY)[::7]
    labels = torch.arange(len(x)) % CLASSES
    given = model.log_prob_given_class(x).gather(1, labels[:, None])
    torch.testing.assert_close(model.loss(Batch(x, labels))["loss"], -given.mean())
    by_bayes = model.log_prob(x) + model.class_log_prob(x).gather(1, labels[:, None])[:, 0] + math.log(CLASSES)
    torch.testing.assert_close(given[:, 0], by_bayes)


# --- densities ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
@pytest.mark.parametrize(("shape", "levels"), [(GREY_BINARY, 2), ((1, 2, 2), 4), (COLOUR, 3)])
def test_every_class_is_a_density_and_their_mean_is_the_model_s(shape, levels, scale):
    model, images = conditional_model(shape, levels, scale), all_images(shape, levels)
    given = model.log_prob_given_class(images)
    assert given.shape == (len(images), CLASSES)
    torch.testing.assert_close(given.logsumexp(0), torch.zeros(CLASSES).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(model.log_prob(images).exp(), given.exp().mean(1))
    assert model.log_prob(images).logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    assert (given.std(1) > 0.1).any() == (scale > 0), "the classes should differ"


@torch.no_grad()
def test_every_class_is_a_density_over_eight_bits():
    model, images = conditional_model(EIGHT_BIT, 256), all_images(EIGHT_BIT, 256)
    given = torch.cat([model.log_prob_given_class(part) for part in images.split(8192)])
    torch.testing.assert_close(given.logsumexp(0), torch.zeros(CLASSES).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(model.log_prob(images[::97]).exp(), given[::97].exp().mean(1))


@torch.no_grad()
def test_classes_by_bayes():
    model, images = conditional_model(GREY_BINARY), all_images(GREY_BINARY)
    posterior = model.class_log_prob(images)
    torch.testing.assert_close(posterior.logsumexp(1), torch.zeros(len(images)).double())
    joint = model.log_prob_given_class(images) - math.log(CLASSES)
    torch.testing.assert_close(posterior + model.log_prob(images)[:, None], joint)
    torch.testing.assert_close(joint.exp().sum(0), torch.ones(CLASSES).double() / CLASSES)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 3), 2), ((2, 2, 2), 2), ((1, 2, 2), 3)])
def test_the_map_and_the_conditionals_are_those_of_the_mixture(shape, levels):
    """Against enumeration: p(x_i | x_<i) is a quotient of sums of p(x) over what comes after."""
    model, images = conditional_model(shape, levels), all_images(shape, levels)
    log_prob, surprise = model.log_prob(images), model.log_prob_map(images)
    assert (surprise <= 0).all()
    torch.testing.assert_close(surprise.flatten(1).sum(1), log_prob)
    in_order = images.permute(0, 2, 3, 1).flatten(1)  # colour after colour within a pixel
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    expected = torch.empty(len(images), in_order.shape[1], levels, dtype=torch.float64)
    for i in range(in_order.shape[1]):
        same = (in_order[:, None, :i] == in_order[:, :i]).all(2)  # (N, N): alike up to i
        for k, value in enumerate(values):
            among = same & (in_order[:, i] == value)
            expected[:, i, k] = torch.where(among, log_prob, -math.inf).logsumexp(1)
    expected = (expected - expected.logsumexp(2, keepdim=True)).unflatten(1, (*shape[1:], shape[0]))  # (N, H, W, C, V)
    for row, column in itertools.product(*map(range, shape[1:])):
        found = model.conditional(images, row, column, values)
        torch.testing.assert_close(found, expected[:, row, column])
        level = (images[:, :, row, column] * (levels - 1)).long()
        torch.testing.assert_close(found.gather(2, level[..., None]).sum((1, 2)), surprise[:, 0, row, column])


@torch.no_grad()
def test_an_unlikely_class_costs_no_precision():
    """Nats of three digits, single precision, and the map still sums to the density and stays below zero."""
    model = conditional_model((1, 8, 8), scale=6.0).float()
    x = torch.randint(2, (20, 1, 8, 8)).float()
    surprise = model.log_prob_map(x)
    assert (surprise <= 0).all() and model.log_prob(x).min() < -100
    torch.testing.assert_close(surprise.flatten(1).sum(1), model.log_prob(x))


# --- samples -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [((1, 4, 6), 2), ((3, 3, 4), 4)])
def test_incremental_sampling_given_classes_is_plain_sampling(shape, levels):
    model, labels = conditional_model(shape, levels), torch.arange(7) % CLASSES
    uniforms = draw_uniforms(model, 7, None, 1.0, seeded_generator(3))
    x = torch.zeros_like(uniforms)
    for row, column, colour in itertools.product(*map(range, (*shape[1:], shape[0]))):
        place = (slice(None), colour, row, column)
        x[place] = model.distribution.sample(model.class_logits(x, labels)[place], uniforms[place])
    assert torch.equal(model.sample(7, labels, generator=seeded_generator(3)), x)
    assert not torch.equal(model.sample(7, (labels + 1) % CLASSES, generator=seeded_generator(3)), x)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "levels"), [((1, 4, 6), 2), ((3, 3, 4), 4)])
def test_incremental_logits_given_classes_in_single_precision(shape, levels):
    model, labels = conditional_model(shape, levels, scale=1.0).float(), torch.arange(7) % CLASSES
    x = torch.randint(levels, (7, *shape)) / (levels - 1)
    found = logits_one_by_one(model.class_incremental(labels), x, model.distribution.parameters)
    torch.testing.assert_close(found, model.class_logits(x, labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 3), 2), (COLOUR, 3)])
def test_samples_follow_the_class_or_the_mixture(shape, levels):
    model, images, n = conditional_model(shape, levels), all_images(shape, levels), 100_000
    labels = torch.arange(CLASSES, dtype=torch.int32).repeat_interleave(n)
    drawn = model.sample(len(labels), labels, generator=seeded_generator(5)).split(n)
    with torch.no_grad():
        given, log_prob = model.log_prob_given_class(images), model.log_prob(images)
    for label, of_class in enumerate(drawn):
        statistic, bound = chi_square(of_class, images, given[:, label])
        assert statistic < bound
        statistic, bound = chi_square(of_class, images, given[:, label - 1])
        assert statistic > bound, "the classes should differ"
    statistic, bound = chi_square(model.sample(n, generator=seeded_generator(6)), images, log_prob)
    assert statistic < bound


@torch.no_grad()
@pytest.mark.parametrize("arguments", [{"kernel_size": 5}, {"blocks": 0}, {"classes": 1}])
@pytest.mark.parametrize(("shape", "levels"), [(GREY_BINARY, 2), (COLOUR, 3)])
def test_other_sizes_are_densities_that_are_drawn_from(shape, levels, arguments):
    """Each class and the mixture; of one class, the mixture is that class."""
    model, images, n = conditional_model(shape, levels, 1.0, **arguments), all_images(shape, levels), 100_000
    given, log_prob = model.log_prob_given_class(images), model.log_prob(images)
    torch.testing.assert_close(given.logsumexp(0), torch.zeros(model.classes).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(log_prob.exp(), given.exp().mean(1))
    last = labels_like(model.classes - 1, n)
    model = model.float()
    for labels, expected in ((last, given[:, -1]), (None, log_prob)):
        statistic, bound = chi_square(model.sample(n, labels, generator=seeded_generator(5)), images, expected)
        assert statistic < bound


def test_bad_labels_are_named():
    model, x = conditional_model(GREY_BINARY), all_images(GREY_BINARY)[:2]
    for labels, message in [
        (torch.tensor([0, CLASSES]), "labels must lie in 0 to 2, as classes=3; got 0 to 3"),
        (torch.tensor([-1, 0]), "labels must lie in 0 to 2"),
        (torch.tensor([0, 1, 2]), r"labels must have shape \(2,\), got \(3,\)"),
        (torch.tensor([[0], [1]]), r"labels must have shape \(2,\)"),
        (torch.tensor([0.0, 1.0]), "labels must be integers, got torch.float32"),
        (torch.tensor([True, False]), "labels must be integers"),
    ]:
        for verb in (lambda labels: model.sample(2, labels), lambda labels: model.loss(Batch(x, labels))):
            with pytest.raises(ValueError, match=message):
                verb(labels)
    with pytest.raises(ValueError, match="labels are missing"):
        model.loss(Batch(x))


# --- completion --------------------------------------------------------------------------------------------------


def enumerated(model: ConditionalGatedPixelCNN, images: Tensor, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Every image that agrees with x (1, C, H, W) where it is known, and its log-probability given that."""
    agree = (images == x) | ~known.bool()
    fits = images[agree.flatten(1).all(1)]
    with torch.no_grad():
        return fits, model.log_prob(fits).log_softmax(0)


@pytest.mark.parametrize(("shape", "levels", "count"), [((1, 2, 3), 2, 2), ((2, 1, 3), 2, 1), ((1, 2, 2), 3, 2)])
def test_completing_a_prefix_follows_the_enumerated_conditional(shape, levels, count):
    """Of the mixture: the class has to be drawn given the prefix, of which one class here is far likelier."""
    model, images = conditional_model(shape, levels), all_images(shape, levels)
    known = (torch.arange(shape[1] * shape[2]) < count).view(1, 1, *shape[1:])
    assert model.completion_is_exact(known)
    for x in images[:: len(images) // 2][:2, None]:
        done = model.complete(x.expand(10_000, *shape), known, generator=seeded_generator(7))
        fits, log_prob = enumerated(model, images, x, known)
        statistic, bound = chi_square_among(done, fits, log_prob)
        assert statistic < bound


@pytest.mark.parametrize(("shape", "levels", "count"), [((1, 2, 3), 2, 2), ((2, 1, 3), 2, 1), ((1, 2, 2), 3, 2)])
def test_completing_a_prefix_of_a_class_follows_that_class(shape, levels, count):
    """p(unknown | known, y), enumerated; each image of a batch is held in the class given for it."""
    model, images = conditional_model(shape, levels), all_images(shape, levels)
    known = (torch.arange(shape[1] * shape[2]) < count).view(1, 1, *shape[1:])
    x = images[len(images) // 2][None]
    fits = images[((images == x) | ~known).flatten(1).all(1)]
    labels = torch.arange(CLASSES).repeat(10_000)
    done = model.complete(x.expand(len(labels), *shape), known, generator=seeded_generator(7), labels=labels)
    with torch.no_grad():
        log_prob = model.log_prob_given_class(fits).log_softmax(0)
    assert (log_prob.exp()[:, 0] - log_prob.exp()[:, 1]).abs().sum() > 0.1, "the classes hardly differ"
    for label in range(CLASSES):
        statistic, bound = chi_square_among(done[labels == label], fits, log_prob[:, label])
        assert statistic < bound


def test_completing_any_mask_of_a_class_comes_near_that_class():
    model, images = conditional_model(GREY_BINARY, scale=2.0), all_images(GREY_BINARY)
    known = torch.tensor([1, 1, 1, 0, 0, 0, 1, 1, 1]).view(1, 1, 3, 3)
    x, labels = images[264], torch.arange(CLASSES).repeat(2000)  # an image whose classes are far apart
    fits = images[((images == x) | ~known.bool()).flatten(1).all(1)]
    with torch.no_grad():
        prob = model.log_prob_given_class(fits).softmax(0)
    done = model.complete(x.expand(len(labels), 1, 3, 3), known, generator=seeded_generator(7), labels=labels)
    which = (done[:, None] == fits).flatten(2).all(2).double().argmax(1)
    shares = torch.stack([torch.bincount(which[labels == y], minlength=len(fits)) / 2000 for y in range(CLASSES)], 1)
    distances = (shares[:, None] - prob[..., None]).abs().sum(0) / 2  # of the class (row) and what was drawn (column)
    assert distances.diagonal().max() < 0.1 < 0.3 < (distances + torch.eye(CLASSES)).min()


def test_bad_classes_of_a_completion_are_named():
    model, x = conditional_model(GREY_BINARY), all_images(GREY_BINARY)[:2]
    for labels in (torch.tensor([0, CLASSES]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="labels must"):
            model.complete(x, torch.ones(1, 1, 3, 3), labels=labels)


def chi_square_among(drawn: Tensor, fits: Tensor, log_prob: Tensor) -> tuple[float, float]:
    """The chi-square of drawn images that all lie among `fits`: told apart by their rank there."""
    which = (drawn[:, None] == fits).flatten(2).all(2).double().argmax(1)
    assert torch.equal(fits[which], drawn)
    values = torch.arange(len(fits), dtype=torch.float64)[:, None] / (len(fits) - 1)
    return chi_square(values[which], values, log_prob)


def test_the_mean_weight_of_candidates_is_the_probability_of_what_is_known_later():
    """Given what is known first, which the class was drawn from: counting it twice would favour its likeliest class."""
    model, images, n = conditional_model(GREY_BINARY), all_images(GREY_BINARY), 20_000
    known = torch.tensor([1, 1, 1, 0, 0, 0, 1, 1, 1]).view(1, 1, 3, 3)
    first = known * (torch.arange(9) < 3).view(1, 1, 3, 3)
    x = images[210][None]
    given = Given(x.expand(n, -1, -1, -1), known.bool().expand(n, -1, -1, -1))
    network = model.completing(x * known, known.bool(), given, seeded_generator(1))
    uniforms = torch.rand(n, *GREY_BINARY, generator=seeded_generator(2), dtype=torch.float64)
    for _ in sample_in_raster_order(network, model.distribution, uniforms, given=given):
        pass
    with torch.no_grad():
        log_prob = model.log_prob(images)
    of_known, of_first = (
        log_prob[((images == x) | ~mask.bool()).flatten(1).all(1)].logsumexp(0) for mask in (known, first)
    )
    weights = (given.log_weight - (of_known - of_first)).exp()  # of mean 1
    assert weights.mean().item() == pytest.approx(1, abs=5 * weights.std().item() / math.sqrt(n))
    assert weights.std() < 10, "too wide to tell"


def test_completing_any_mask_comes_near_the_enumerated_conditional():
    """3x3 images, first and last row known: candidates chosen by their weights come near the enumerated conditional."""
    model, images = conditional_model(GREY_BINARY), all_images(GREY_BINARY)
    known = torch.tensor([1, 1, 1, 0, 0, 0, 1, 1, 1]).view(1, 1, 3, 3)
    assert not model.completion_is_exact(known)
    for x in images[[5, 210, 333], None]:
        fits, log_prob = enumerated(model, images, x, known)
        done = model.complete(x.expand(2000, 1, 3, 3), known, generator=seeded_generator(7))
        which = (done[:, None] == fits).flatten(2).all(2).double().argmax(1)
        shares = torch.bincount(which, minlength=len(fits)) / len(done)
        assert (shares - log_prob.exp()).abs().sum() / 2 < 0.05


def test_a_class_drawn_for_a_completion_is_that_of_a_sample_where_nothing_is_known():
    model = conditional_model((2, 3, 4))
    nothing, x = torch.zeros(1, 1, 3, 4), torch.zeros(9, 2, 3, 4, dtype=torch.float64)
    sample = model.sample(9, generator=seeded_generator(4))
    assert torch.equal(model.complete(x, nothing, generator=seeded_generator(4)), sample)


# --- bad arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gated_pixel_cnn", "conditional_gated_pixel_cnn"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 4}, "channels must be a multiple of the 3 colours"),
        ({"channels": 0}, "channels must be a multiple of the 3 colours"),
        ({"blocks": -1}, "blocks must be at least 0"),
        ({"kernel_size": 4}, "kernel_size must be odd and at least 3"),
        ({"first_kernel_size": 1}, "first_kernel_size must be odd and at least 3"),
        ({"dropout": 1.0}, "dropout must be at least 0"),
        ({"pixels": "levels", "levels": 1}, "levels must be between 2 and 256"),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, (3, 4, 4), **arguments)


def test_there_is_at_least_one_class():
    with pytest.raises(ValueError, match="classes must be at least 1"):
        ConditionalGatedPixelCNN((1, 4, 4), classes=0)
