"""Deep energies: Langevin chains reach their density, both ways of learning follow the right gradient, norms bound."""

from __future__ import annotations

import copy
import io
import itertools
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.anomaly import score_images, scorers_for
from gdm_core.contract import Batch, DivergenceError, GenerativeModel, TrainingConfig
from gdm_core.models.energy.energy_network import LARGEST_SLOPE, EnergyNetwork
from gdm_core.models.energy.grey_surprise import grey_surprise, squares
from gdm_core.models.energy.learning.langevin_likelihood import LARGEST_GAP, LangevinLikelihood
from gdm_core.models.energy.learning.replay_buffer import ReplayBuffer
from gdm_core.models.energy.learning.score_matching import score_matching_loss
from gdm_core.models.energy.sampling.langevin import langevin_step, reflect
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.training import train

SMALL = {"channels": 4, "steps": 3, "chains": 12, "sampling_steps": 8}
SHAPES = [(1, 1, 1), (3, 1, 5), (1, 2, 3), (3, 9, 7)]
VARIANTS = {
    "likelihood": {},
    "spectral norm": {"spectral_norm": True, "energy_penalty": 0.0},
    "score matching": {"learning": "score_matching", "noise_levels": 3},
    "one level": {"learning": "score_matching", "noise_levels": 1},
}
every_variant = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def small(shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0, **arguments: object) -> GenerativeModel:
    torch.manual_seed(seed)
    return build_model("deep_energy", shape, **{**SMALL, **arguments})


def images(n: int, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 1) -> Tensor:
    return torch.rand(n, *shape, generator=seeded_generator(seed))


class Pictures:
    """Images as the loop takes them."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.x[rows])


# --- Langevin chains ---------------------------------------------------------------------------------------------


def chain(x: Tensor, slope, noise: float, steps: int) -> Tensor:
    generator = seeded_generator(0)
    for _ in range(steps):
        x = langevin_step(x, slope(x), noise, torch.randn(x.shape, dtype=x.dtype, generator=generator))
    return x


def test_mirrors_at_the_ends_fold_any_number_between_them() -> None:
    x = torch.tensor([0.3, -0.2, 1.1, 2.25, -1.5, 7.0, 0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.3, 0.2, 0.9, 0.25, 0.5, 1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(reflect(x), expected)


def test_a_quadratic_energy_reaches_the_mean_and_variance_of_its_gaussian() -> None:
    """E = (x - m)^2 / 2 v. A step of finite size ends in variance noise^2 / (1 - (1 - noise^2 / 2 v)^2), near v."""
    n, mean, variance, noise = 50_000, 0.5, 0.005, 0.02
    x = chain(torch.rand(n, dtype=torch.float64, generator=seeded_generator(1)), lambda x: (x - mean) / variance,
              noise, 200)  # fmt: skip
    reached = noise**2 / (1 - (1 - noise**2 / (2 * variance)) ** 2)
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert x.var().item() == pytest.approx(reached, rel=4 * math.sqrt(2 / n))
    assert reached == pytest.approx(variance, rel=0.03)


def test_a_flat_energy_stays_even_up_to_the_border() -> None:
    """Clamping would collect a fifth of the pixels at 0 and 1."""
    n = 100_000
    x = chain(torch.rand(n, dtype=torch.float64, generator=seeded_generator(1)), torch.zeros_like, 0.3, 10)
    counts = torch.histc(x, 20, 0, 1)
    assert ((counts - n / 20).square() / (n / 20)).sum() < 43.8  # chi-square of 19 degrees, 0.1 %


def test_an_energy_that_leans_on_the_border_has_the_truncated_exponential() -> None:
    """E = a x on [0, 1]: mean 1 / a - 1 / (exp(a) - 1)."""
    x = chain(torch.rand(4000, dtype=torch.float64, generator=seeded_generator(1)), lambda x: torch.full_like(x, 4.0),
              0.04, 1500)  # fmt: skip
    assert x.mean().item() == pytest.approx(1 / 4 - 1 / math.expm1(4), abs=0.015)


def test_a_step_of_the_model_is_written_as_the_paper_does() -> None:
    """x - step_size / 2 grad f + noise u, divided slopes for a temperature, and E = f step_size / noise^2."""
    model, x = small(step_size=0.3, noise=0.1), images(5)
    leaf = x.clone().requires_grad_()
    f = model.network(leaf)
    (slope,) = torch.autograd.grad(f.sum(), leaf)
    torch.testing.assert_close(model.energy(x), f * 0.3 / 0.1**2)
    u = torch.randn(x.shape, generator=seeded_generator(3))
    for temperature in (1.0, 2.5):
        expected = reflect(x - 0.3 / 2 * slope / temperature + 0.1 * u)
        torch.testing.assert_close(model.step(x, temperature, seeded_generator(3)), expected)


def test_the_chain_lowers_the_energy_of_noise() -> None:
    model, x = small(noise=0.005, step_size=0.1), images(30)
    *_, last = itertools.islice(model.chain_steps(x, generator=seeded_generator(0)), 100)
    assert (model.energy(last) < model.energy(x)).all()


def test_samples_of_score_matching_go_from_the_largest_noise_to_the_smallest() -> None:
    model = small(learning="score_matching", noise_levels=4, smallest_noise=0.1, largest_noise=0.8, sampling_steps=10)
    assert model.schedule() == pytest.approx([0.8] * 3 + [0.4] * 2 + [0.2] * 3 + [0.1] * 2)
    assert small(sampling_steps=3).schedule() == pytest.approx([0.025] * 3)  # without levels the noise stays itself


# --- the network -------------------------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_learns_with_every_parameter_and_draws(arguments: dict, shape: tuple[int, int, int]) -> None:
    model = small(shape, **arguments)
    before = copy.deepcopy(model.state_dict())
    (phase,) = model.training_phases(TrainingConfig())
    assert all(value.isfinite() for value in phase.update(Batch(images(6, shape))).values())
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert model.check_images(model.sample(3, generator=seeded_generator(0))).shape == (3, *shape)


def test_no_activation_is_steeper_than_one_and_the_steepest_is() -> None:
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(F.silu(x).sum() / LARGEST_SLOPE, x)
    assert slope.abs().max().item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("kernel, stride", [(3, 1), (4, 2)])
def test_a_convolution_stretches_by_no_more_than_its_overlap(kernel: int, stride: int) -> None:
    """Its whole matrix against the norm of its weight: at most ceil(k / s) times as large; even weights come near."""
    weight = torch.ones(1, 1, kernel, kernel, dtype=torch.float64)
    rows = F.conv2d(torch.eye(144, dtype=torch.float64).view(144, 1, 12, 12), weight, None, stride, 1).flatten(1)
    stretch = torch.linalg.matrix_norm(rows, 2) / torch.linalg.matrix_norm(weight.flatten(1), 2)
    overlap = -(-kernel // stride)
    assert 0.9 * overlap < stretch <= overlap


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_spectral_norm_bounds_the_slope_whatever_the_parameters(scale: float) -> None:
    torch.manual_seed(0)
    norms = {}
    for bounded in (True, False):
        network = EnergyNetwork((2, 6, 6), 4, spectral_norm=bounded).double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
        x = torch.rand(50, 2, 6, 6, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(network(x).sum(), x)
        norms[bounded] = slope.flatten(1).norm(dim=1).max().item()
        for layer in (*network.convolutions, network.last) if bounded else ():
            assert torch.linalg.matrix_norm(network.weight(layer).flatten(1), 2).item() == pytest.approx(1)
    assert norms[True] <= network.largest_slope() == 12 < norms[False]


def test_the_slope_as_a_heat_map_equals_finite_differences() -> None:
    model, x = small((3, 3, 4), surprise="slope").double(), images(2, (3, 3, 4)).double()
    expected = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    for c, row, column in itertools.product(range(3), range(3), range(4)):
        up, down = x.clone(), x.clone()
        up[:, c, row, column] += 1e-5
        down[:, c, row, column] -= 1e-5
        difference = model.tempered_energy(up) - model.tempered_energy(down)
        expected[:, 0, row, column] += (difference / 2e-5).abs().detach()
    torch.testing.assert_close(model.surprise_map(x), expected, rtol=1e-6, atol=1e-6)


def test_a_pixel_is_as_strange_as_its_grey_is_less_likely_than_others() -> None:
    """Of an energy that is a sum over pixels each has its own, whatever the others are; and the map adds colours."""
    x = images(3, (2, 3, 3)).double()
    pull = torch.linspace(-40, 40, 18, dtype=torch.float64).view(2, 3, 3)
    greys = torch.tensor([1, 3, 5, 7]) / 8
    p_here, p_there = (-pull * x).exp(), (-pull[..., None] * greys).exp().mean(-1)
    expected = -(p_here / (p_here + p_there)).log()
    torch.testing.assert_close(grey_surprise(lambda x: (pull * x).flatten(1).sum(1), x), expected)
    for many in (1, 7, 10_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gdm_core.models.energy.grey_surprise.IMAGES_AT_ONCE", many)
            torch.testing.assert_close(grey_surprise(lambda x: (pull * x).flatten(1).sum(1), x), expected)
    model = small((2, 3, 3)).double()
    by_hand = grey_surprise(model.energy, x).sum(1, keepdim=True)
    torch.testing.assert_close(model.surprise_map(x), by_hand.detach())


def test_large_images_are_asked_about_squares() -> None:
    assert torch.equal(squares(torch.rand(1, 1, 16, 16)), torch.arange(256).view(1, 16, 16))
    places = squares(torch.rand(1, 3, 19, 32))
    assert len(places.unique()) == places.max() + 1 == 3 * 7 * 11  # of 3x3 pixels; 2x2 would be 480
    assert (places[:, :3, :3].flatten(1) == torch.tensor([[0], [77], [154]])).all() and places[0, 3, 0] == 11
    x = images(2, (1, 17, 17)).double()
    surprise = grey_surprise(lambda x: 9 * x.flatten(1).sum(1), x)
    square = x[:, 0, :2, :2].sum((1, 2))
    p_there = (-9 * 4 * torch.tensor([1, 3, 5, 7]) / 8).exp().mean()
    expected = -((-9 * square).exp() / ((-9 * square).exp() + p_there)).log()
    torch.testing.assert_close(surprise[:, 0, :2, :2], expected.view(2, 1, 1).expand(2, 2, 2), rtol=1e-5, atol=1e-9)


def test_scorers_take_the_energy_and_the_strangest_pixels() -> None:
    model, x = small(), images(3)
    assert [entry.name for entry in scorers_for(model)] == ["energy", "peak"]
    torch.testing.assert_close(score_images(model, "energy", x), model.energy(x).detach().double())
    assert score_images(model, "peak", x).isfinite().all()


# --- maximum likelihood ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_the_gradient_is_that_of_the_energies_of_data_less_chains(penalty: float) -> None:
    """The chains are held fixed; they are where the buffer stands afterwards."""
    model, x = small(energy_penalty=penalty, chains=6), images(6)
    before = copy.deepcopy(model)
    update = LangevinLikelihood(model, TrainingConfig())
    start = update.buffer.images.clone()
    metrics = update(Batch(x))
    chains = update.buffer.images
    assert not torch.equal(chains, start) and not chains.requires_grad
    data_energy, chain_energy = before.energy(x), before.energy(chains)
    gap = data_energy.mean() - chain_energy.mean()
    (gap + penalty * (data_energy.square().mean() + chain_energy.square().mean())).backward()
    assert metrics["energy_gap"].item() == pytest.approx(gap.item(), rel=1e-4)
    for expected, moved in zip(before.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(moved.grad, expected.grad, rtol=1e-3, atol=1e-5)


def test_learning_lowers_the_energy_of_data_below_that_of_noise() -> None:
    model, stripes = small(steps=5), images(64) * 0.1 + torch.tensor([0.1, 0.8, 0.1, 0.8])
    for _ in train(model, Pictures(stripes), TrainingConfig(epochs=20, batch_size=32, learning_rate=1e-3)):
        pass
    assert model.energy(stripes).max() < model.energy(images(64)).min()


def test_the_buffer_goes_on_where_it_stopped_and_begins_anew_now_and_then() -> None:
    torch.manual_seed(0)
    buffer = ReplayBuffer(2000, (1, 2, 2), restarts=0.1, device="cpu")
    buffer.put(torch.arange(2000), torch.full((2000, 1, 2, 2), 0.5))
    rows, x = buffer.draw(1000)
    assert len(rows.unique()) == 1000
    anew = (x != 0.5).flatten(1).any(1)
    assert abs(anew.sum().item() - 100) < 40 and (x[anew] != 0.5).all()
    buffer.put(rows[:1], torch.zeros(1, 1, 2, 2))
    assert buffer.images[rows[0]].eq(0).all() and buffer.images.eq(0).sum() == 4
    rows, _ = buffer.draw(5000)
    assert sorted(rows.tolist()) == list(range(2000))


def test_the_state_of_the_buffer_survives_and_is_nobody_elses() -> None:
    first, second = (LangevinLikelihood(small(), TrainingConfig()) for _ in range(2))
    first(Batch(images(4)))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(first.buffer.images, second.buffer.images)
    second.load_state_dict(first.state_dict())
    second.buffer.images.fill_(0)
    assert first.buffer.images.any()


# --- divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate, diverges", [(2e-3, False), (3e-2, False), (1.0, True)])
def test_a_score_far_worse_than_none_is_divergence(rate: float, diverges: bool) -> None:
    model = small(learning="score_matching", noise_levels=3)
    update = next(iter(model.training_phases(TrainingConfig(epochs=1, learning_rate=rate)))).update
    batch = Batch(images(32))
    torch.manual_seed(0)
    refusal = pytest.raises(DivergenceError, match="score matching loss .*smaller learning rate")
    with refusal if diverges else nullcontext():
        for _ in range(8):
            update(batch)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DivergenceError, match="loss is nan"):
        update(batch)


def test_energies_far_apart_are_a_sign() -> None:
    model, x = small(), images(6)
    with torch.no_grad():
        model.network.last.weight.mul_(3 * LARGEST_GAP * 16 / model.energy(x).std())
    with pytest.raises(DivergenceError, match="nats apart .*smaller learning rate"):
        LangevinLikelihood(model, TrainingConfig())(Batch(x))


def test_chains_that_run_to_black_and_white_are_a_sign_unless_the_data_does() -> None:
    model = small(step_size=1e-4, noise=1e-4, energy_penalty=0.0)  # chains that hardly move, from where they are put
    update = LangevinLikelihood(model, TrainingConfig())
    black, grey = torch.full((12, 1, 4, 4), 0.001), torch.full((12, 1, 4, 4), 0.5)
    update.buffer = ReplayBuffer(12, (1, 4, 4), 0.0, "cpu")
    update.buffer.put(torch.arange(12), black)
    update(Batch(black))
    with pytest.raises(DivergenceError, match="100% more of the chains' pixels .*smaller learning rate"):
        update(Batch(grey))


def test_a_broken_weight_is_a_sign() -> None:
    model = small()
    with torch.no_grad():
        model.network.last.weight.fill_(math.nan)
    with pytest.raises(DivergenceError, match="nan nats apart"):
        LangevinLikelihood(model, TrainingConfig())(Batch(images(6)))


# --- score matching ----------------------------------------------------------------------------------------------


def test_the_loss_is_least_at_the_score_of_a_gaussian() -> None:
    """Data N(m, v) with noise s: E = (x - m)^2 / 2 (v + s^2). The loss is quadratic in the energy's a x^2 / 2 + b x."""
    n, mean, variance = 400_000, 0.4, 0.09
    generator = seeded_generator(0)
    x = mean + math.sqrt(variance) * torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)
    u = torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)
    for s in (0.1, 0.5):
        levels, best = torch.full((n,), s, dtype=torch.float64), torch.zeros(2, dtype=torch.float64, requires_grad=True)

        def loss(c: Tensor, levels: Tensor = levels) -> Tensor:
            energy = SimpleNamespace(tempered_energy=lambda y, _: (c[0] * y.square() / 2 + c[1] * y).flatten())
            return score_matching_loss(energy, x, levels, u)

        hessian = torch.autograd.functional.hessian(loss, best)
        found = -torch.linalg.solve(hessian, torch.autograd.grad(loss(best), best)[0])
        precision = 1 / (variance + s**2)
        assert found.tolist() == pytest.approx([precision, -precision * mean], rel=0.03)


def test_its_gradient_goes_through_the_slope() -> None:
    """A second derivative: one weight of each tensor against finite differences."""
    model, x = small(learning="score_matching", noise_levels=3).double(), images(4).double()
    levels, u = model.noise_scales().double()[torch.tensor([0, 1, 2, 0])], torch.randn(x.shape, dtype=torch.float64)
    score_matching_loss(model, x, levels, u).backward()
    for name, parameter in model.named_parameters():
        flat, losses = parameter.detach().view(-1), []
        for step in (1e-5, -2e-5):
            flat[1] += step
            losses.append(score_matching_loss(model, x, levels, u).item())
        flat[1] += 1e-5
        difference = (losses[0] - losses[1]) / 2e-5
        assert parameter.grad.view(-1)[1].item() == pytest.approx(difference, rel=1e-4, abs=1e-7), name


def test_each_level_has_an_energy_of_its_own() -> None:
    model, x = small(learning="score_matching", noise_levels=3), images(3)
    levels = [model.tempered_energy(x, torch.full((3,), level)) for level in model.noise_scales().tolist()]
    torch.testing.assert_close(levels[0], model.energy(x))
    assert not torch.allclose(levels[0], 20 * levels[2], rtol=1e-3), "they differ only by their scale"
    assert model.noise_scales().tolist() == pytest.approx([0.025, math.sqrt(0.025 * 0.5), 0.5])


@every_variant
def test_resumed_equals_uninterrupted_bit_for_bit(arguments: dict) -> None:
    x, config = images(10), TrainingConfig(epochs=2, batch_size=4)
    whole, states = small(**arguments), []
    for progress in train(whole, Pictures(x), config):
        states.append(copy.deepcopy(progress.state_dict()))
    again = small(seed=7, **arguments)
    for _ in train(again, Pictures(x), config, states[3]):
        pass
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"channels": 0}, "channels"), ({"steps": 0}, "steps"), ({"chains": 0}, "chains"), ({"noise": 0.0}, "noise"),
        ({"step_size": -1.0}, "step_size"), ({"restarts": 1.5}, "restarts"), ({"energy_penalty": -1.0}, "penalty"),
        ({"noise_levels": 0}, "noise_levels"), ({"smallest_noise": 0.0}, "smallest_noise"),
        ({"smallest_noise": 2.0}, "smallest_noise"), ({"learning": "guessing"}, "learning"),
        ({"sampling_steps": 0}, "sampling_steps"), ({"surprise": "none"}, "surprise"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        small(**arguments)
