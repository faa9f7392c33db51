"""PixelCNN++: the discretised mixture of logistics, what its convolutions see, resolutions, dropout, and learning."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, SigmoidTransform, TransformedDistribution, Uniform

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.layers.mixture_of_logistics import LogisticColours, MixtureOfLogistics
from gdm_core.layers.shifted_convolution import ShiftedConvolution, ShiftedUpsampling
from gdm_core.models.autoregressive import two_streams
from gdm_core.models.autoregressive.pixel_cnn_plus_plus import BernoulliColours, PixelCNNPlusPlus
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import GREY_BINARY, Images, all_images, random_model


def levels_of(levels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.arange(levels, dtype=dtype) / (levels - 1)


def uniform_grid(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


# --- the discretised mixture of logistics ------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
def test_masses_sum_to_one_for_any_parameters(levels, spread):
    """Means far outside, scales from next to nothing to far more than the range, weights of any size."""
    mixture, x = MixtureOfLogistics(levels, 4), levels_of(levels)
    logits = spread * torch.randn(200, 1, 12, dtype=torch.float64)
    log_prob = mixture.log_prob(logits.expand(200, levels, 12), x.expand(200, levels))
    assert log_prob.isfinite().all() and (log_prob <= 0).all()
    torch.testing.assert_close(log_prob.logsumexp(1), torch.zeros(200).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_masses_are_differences_of_the_logistic_distribution_function(levels):
    x, bin_width = levels_of(levels), 2 / (levels - 1)
    for mean, scale in itertools.product((-1.3, 0.2, 0.9), (0.05, 0.4, 3.0)):
        mean, scale = torch.tensor(mean).double(), torch.tensor(scale).double()
        uniform = Uniform(torch.zeros(()).double(), torch.ones(()).double())
        logistic = TransformedDistribution(uniform, [SigmoidTransform().inv, AffineTransform(mean, scale)])
        edges = -1 + bin_width / 2 + bin_width * torch.arange(levels - 1).double()
        below = torch.cat([torch.zeros(1).double(), logistic.cdf(edges), torch.ones(1).double()])
        found = MixtureOfLogistics(levels, 1).log_masses(mean.expand(levels, 1), scale.log().expand(levels, 1), x)
        torch.testing.assert_close(found[:, 0].exp(), below.diff(), rtol=1e-9, atol=1e-13)


def test_masses_far_out_where_both_sigmoids_are_the_same_number():
    """With z = (v + h - mu) / s below -40 the mass is exp(z) (1 - exp(-2 h / s)) to the last digit, however small."""
    mixture, scale = MixtureOfLogistics(5, 1), 0.01
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        mean, log_scale = torch.full((1,), 9.0, dtype=dtype), torch.full((1,), math.log(scale), dtype=dtype)
        mass = mixture.log_masses(mean, log_scale, torch.tensor(0.5, dtype=dtype))
        expected = (0.25 - 9) / scale + math.log1p(-math.exp(-0.5 / scale))
        assert mass.item() == pytest.approx(expected, rel=tolerance)
        mirrored = mixture.log_masses(-mean, log_scale, torch.tensor(0.5, dtype=dtype))
        torch.testing.assert_close(mirrored, mass)


def test_gradients_are_finite_where_masses_vanish():
    logits = torch.tensor([[0.0, 3000.0, -9.0], [0.0, 0.1, 60.0], [5.0, -1e6, 0.0]], dtype=torch.float32)
    logits = logits.repeat(3, 1, 1).requires_grad_()
    MixtureOfLogistics(256, 1).log_prob(logits, torch.tensor([[0.0], [0.2], [1.0]])).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_uniforms_become_draws_from_the_mixture(temperature):
    """Evenly spread uniforms: the shares of the levels are their masses, up to a few uniforms at each end."""
    mixture, uniforms = MixtureOfLogistics(6, 3), uniform_grid(200_000)
    weights, means, log_scales = torch.randn(3, 3, dtype=torch.float64)
    drawn = mixture.sample(torch.cat([weights, means, log_scales]).expand(len(uniforms), 9), uniforms, temperature)
    tempered = torch.cat([weights / temperature, means, log_scales + math.log(temperature)])
    shares = torch.bincount((drawn * 5).round().long(), minlength=6) / len(uniforms)
    expected = mixture.log_prob(tempered.expand(6, 9), levels_of(6)).exp()
    torch.testing.assert_close(shares.double(), expected, rtol=0, atol=1e-4)
    assert torch.isin(drawn, levels_of(6)).all()


def test_a_temperature_near_nothing_gives_the_likeliest_component_s_mean():
    logits = torch.tensor([0.0, 1.0, 0.5, -0.9, 0.45, 0.9, 1.0, 2.0, 3.0]).double().expand(50, 9)
    drawn = MixtureOfLogistics(11, 3).sample(logits, uniform_grid(50), 1e-6)
    torch.testing.assert_close(drawn, torch.full((50,), 0.7).double())  # (0.45 + 1) / 2 lies in the bin of 0.7


def test_extreme_uniforms_and_weights_give_levels():
    logits = torch.tensor([[0.0, -1e4, 0.5, 1e9, 3.0, -9.0], [-1e4, 0.0, -1e9, 0.1, 90.0, 90.0]])
    uniforms = torch.tensor([[0.0], [1 - 2**-24], [0.5]])
    drawn = MixtureOfLogistics(256, 2).sample(logits.expand(3, 2, 6), uniforms.expand(3, 2))
    assert torch.isin(drawn, levels_of(256, torch.float32)).all()


# --- colours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
def test_colours_share_the_indicator_and_their_conditionals_multiply_to_the_mixture(colours):
    """Against log sum_m pi_m prod_c p_m(x_c | x_{<c}), written out number by number of the network's output."""
    mixture = MixtureOfLogistics(3, 2)
    head = LogisticColours(colours, mixture)
    assert head.features == 2 * (1 + 2 * colours + colours * (colours - 1) // 2)
    output, x = torch.randn(head.features).double(), all_images((colours, 1, 1), 3)[:, :, 0, 0]  # every pixel
    found = sum(
        mixture.log_prob(logits, x[:, colour])
        for colour, logits in enumerate(head.conditionals(output.expand(len(x), -1), x.unbind(1)))
    )
    numbers, v = iter(output.split(2)), 2 * x - 1
    log_joint, means = next(numbers).log_softmax(0).expand(len(x), 2), [next(numbers) for _ in range(colours)]
    log_scales = [next(numbers) for _ in range(colours)]
    for colour in range(colours):
        mean = means[colour] + sum(next(numbers).tanh() * v[:, d, None] for d in range(colour))
        log_joint = log_joint + mixture.log_masses(mean.expand(len(x), 2), log_scales[colour], x[:, colour])
    torch.testing.assert_close(found, log_joint.logsumexp(1))
    assert found.logsumexp(0).item() == pytest.approx(0, abs=1e-12)


def test_binary_colours_are_linear_in_the_earlier_ones():
    head = BernoulliColours(3)
    output = torch.tensor([[0.1, 0.2, 0.3, 10.0, 20.0, 30.0]])
    found = [logits.item() for logits in head.conditionals(output, torch.tensor([[1.0], [0.0], [1.0]]))]
    assert found == pytest.approx([0.1, 0.2 + 10, 0.3 + 20 - 30])


# --- what the convolutions see -----------------------------------------------------------------------------------


def seen(layer: torch.nn.Module, size: tuple[int, int], place: tuple[int, int], *arguments: tuple) -> set:
    """The places of the input that an output depends on."""
    x = torch.randn(1, 1, *size, requires_grad=True)
    layer(x, *arguments)[0, 0, place[0], place[1]].backward()
    return {tuple(at) for at in x.grad[0, 0].nonzero().tolist()}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (6, 4), (1, 3), (3, 1)])
def test_strided_convolutions_see_only_up_and_up_and_to_the_left(height, width):
    to_both_sides, to_the_left = ShiftedConvolution(1, 1, (2, 3), stride=2), ShiftedConvolution(1, 1, (2, 2), True, 2)
    for i, j in itertools.product(range(math.ceil(height / 2)), range(math.ceil(width / 2))):
        rows = {row for row in (2 * i - 1, 2 * i) if row >= 0}
        inside = {(row, column) for row in rows for column in range(2 * j - 1, 2 * j + 2) if 0 <= column < width}
        assert seen(to_both_sides, (height, width), (i, j)) == inside
        assert seen(to_the_left, (height, width), (i, j)) == {(r, c) for r, c in inside if c <= 2 * j}
    assert to_both_sides(torch.zeros(1, 1, height, width)).shape[2:] == (math.ceil(height / 2), math.ceil(width / 2))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (6, 4), (1, 3), (3, 1)])
def test_upsampling_comes_from_the_coarse_place_before_and_is_cut_to_size(height, width):
    to_both_sides, to_the_left = ShiftedUpsampling(1, 1), ShiftedUpsampling(1, 1, left=True)
    coarse = math.ceil(height / 2), math.ceil(width / 2)
    for i, j in itertools.product(range(height), range(width)):
        own = {(i // 2, j // 2)}
        right = {(i // 2, j // 2 + 1)} if j % 2 and j // 2 + 1 < coarse[1] else set()
        assert seen(to_the_left, coarse, (i, j), (height, width)) == own
        assert seen(to_both_sides, coarse, (i, j), (height, width)) == own | right
    assert to_both_sides(torch.zeros(1, 1, *coarse), (height, width)).shape == (1, 1, height, width)


# --- resolutions -------------------------------------------------------------------------------------------------


def test_each_resolution_has_half_the_rows_and_columns_rounded_up():
    model, sizes = PixelCNNPlusPlus((1, 9, 6), channels=3, resolutions=4, levels=4), []
    for module in model.modules():
        if isinstance(module, two_streams.Resolution):
            module.register_forward_pre_hook(lambda _, streams: sizes.append(tuple(streams[0][1].shape[2:])))
    assert model.logits(torch.zeros(2, 1, 9, 6)).shape == (2, 1, 9, 6, 30)
    assert sizes == [(9, 6), (5, 3), (3, 2), (2, 1)]


GREY_CASES = [((1, 7, 9), 3, 2, 2), ((1, 9, 5), 4, 1, 17), ((1, 1, 11), 4, 1, 2)]
CASES = [*GREY_CASES, ((2, 6, 1), 3, 1, 4), ((3, 5, 6), 2, 2, 256)]


@torch.no_grad()
@pytest.mark.parametrize(("shape", "resolutions", "blocks", "levels"), CASES)
def test_incremental_logits_are_the_network_s_at_many_resolutions(shape, resolutions, blocks, levels):
    model = PixelCNNPlusPlus(shape, 4, blocks, resolutions, 2, pixels="binary" if levels == 2 else "levels",
                             levels=levels).double()  # fmt: skip
    x = torch.randint(levels, (3, *shape)).double() / (levels - 1)
    network, logits = model.incremental(3), torch.zeros_like(model.logits(x))
    for row in range(shape[1]):
        network.begin_row()
        for column, colour in itertools.product(range(shape[2]), range(shape[0])):
            logits[:, colour, row, column] = network.logits(column, colour)
            network.write(x[:, colour, row, column], column, colour)
    torch.testing.assert_close(logits, model.logits(x), rtol=1e-11, atol=1e-12)


def test_sampling_computes_every_place_of_every_resolution_once(monkeypatch):
    calls, step, begin_row = [], two_streams.IncrementalBlock.step, two_streams.IncrementalBlock.begin_row

    def counted(block, *arguments):
        calls.append((block, "place"))
        return step(block, *arguments)

    def counted_row(block, *arguments):
        calls.append((block, "row"))
        return begin_row(block, *arguments)

    monkeypatch.setattr(two_streams.IncrementalBlock, "step", counted)
    monkeypatch.setattr(two_streams.IncrementalBlock, "begin_row", counted_row)
    PixelCNNPlusPlus((1, 6, 8), channels=2, resolutions=3, levels=4).sample(2)
    counts = sorted(sum(call == entry for call in calls) for entry in set(calls))
    rows, places = [2] * 2 + [3] * 3 + [6] * 3, [4] * 2 + [12] * 3 + [48] * 3  # of 2x2, 3x4 and 6x8 places
    assert counts == sorted(rows + places)


# --- arguments, dropout, learning --------------------------------------------------------------------------------


def test_bad_arguments_are_named():
    for name in ("channels", "blocks", "resolutions", "components"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            build_model("pixel_cnn_plus_plus", (1, 4, 4), **{name: 0})
    for dropout in (-0.1, 1.0):
        with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
            build_model("pixel_cnn_plus_plus", (1, 4, 4), dropout=dropout)
    with pytest.raises(ValueError, match="odd width, got 4"):
        ShiftedConvolution(1, 1, (2, 4))


@pytest.mark.parametrize("levels", [2, 4])
def test_dropout_acts_on_the_loss_in_training_and_never_on_the_density(levels):
    model = random_model("pixel_cnn_plus_plus", GREY_BINARY, levels).train()
    model.dropout = 0.5
    x = all_images(GREY_BINARY)[::7]
    assert model.loss(Batch(x))["loss"] != model.loss(Batch(x))["loss"]
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    torch.testing.assert_close(model.eval().loss(Batch(x))["loss"], -model.log_prob(x).mean())


@pytest.mark.parametrize("pixels", ["levels", "binary"])
def test_it_learns_that_rows_repeat(pixels):
    """Images whose rows are all the same random row: all there is to learn is the entropy of one row."""
    levels, row = (4, torch.randint(4, (160, 1, 1, 3))) if pixels == "levels" else (2, torch.randint(2, (160, 1, 1, 3)))
    images = (row / (levels - 1)).expand(-1, -1, 4, -1).contiguous()
    model = PixelCNNPlusPlus((1, 4, 3), channels=12, components=4, dropout=0.0, pixels=pixels, levels=levels)
    for _ in train(model, Images(images), TrainingConfig(epochs=7, batch_size=16, learning_rate=1e-2)):
        pass
    with torch.no_grad():
        assert -model.eval().log_prob(images).mean() < 3 * math.log(levels) + 0.5  # of 12 log(levels) without learning


def test_half_precision_autocast_keeps_the_means_between_256_levels():
    """Bright pixels under narrow logistics, where a mean that is rounded to bfloat16 is half a level off."""
    model = build_model("pixel_cnn_plus_plus", (1, 6, 6), channels=6, components=2).eval()
    x = torch.randint(248, 254, (40, 1, 6, 6)) / 255
    with torch.no_grad():
        model.output.weight.mul_(0.02)
        model.output.bias.copy_(torch.tensor([0.0, 0.0, 0.9678, 0.9678, -5.0, -5.0]))
        expected = model.log_prob_map(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.log_prob_map(x)
    bits = (found - expected) / math.log(2)
    assert bits.mean().abs() < 5e-4 and bits.abs().max() < 0.02
