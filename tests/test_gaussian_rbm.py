"""The Gaussian restricted Boltzmann machine against integrals, mixtures written out, and autograd."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch

import gdm_core.models  # noqa: F401
from gdm_core.annealing import anneal_backwards, annealed_log_prob
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.likelihoods import annealing_report
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.test_rbm import Rows


def machine(shape=(1, 1, 2), hidden_units: int = 3, scale: float = 1.0, **arguments):
    """A machine in double precision whose hidden units matter."""
    model = build_model("gaussian_rbm", shape, hidden_units=hidden_units, **arguments).double()
    with torch.no_grad():
        model.weight.copy_(scale * torch.randn(model.weight.shape))
        model.hidden_bias.copy_(scale * torch.randn(model.hidden_bias.shape))
        model.visible_bias.copy_(0.5 + 0.2 * torch.randn(model.visible_bias.shape))
        model.log_sigma.copy_(math.log(0.2) + 0.3 * torch.randn(model.log_sigma.shape))
        model.base_mean.copy_(model.visible_bias + 0.1)
        model.base_sigma.fill_(0.4)
    return model


def mixture(model) -> tuple[torch.Tensor, torch.Tensor]:
    """log of the weights (2^hidden,) and the means (2^hidden, D) of the Gaussians it is, from the energy by hand."""
    hidden, sigma = len(model.hidden_bias), model.minimum_sigma + model.log_sigma.detach().exp()
    h = torch.tensor(list(itertools.product([0.0, 1.0], repeat=hidden)), dtype=torch.float64)
    shift = h @ model.weight.detach()
    log_weights = (h @ model.hidden_bias + 0.5 * shift.square().sum(1)).log_softmax(0)
    return log_weights.detach(), (model.visible_bias + sigma * shift).detach()


def log_density(model, v: torch.Tensor) -> torch.Tensor:
    """log p(v) of vectors (N, D) as that mixture."""
    log_weights, means = mixture(model)
    sigma = model.minimum_sigma + model.log_sigma.detach().exp()
    parts = torch.distributions.Normal(means, sigma).log_prob(v[:, None]).sum(2)
    return (log_weights + parts).logsumexp(1)


def rows_of(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_density_integrates_to_one_over_the_plane(scale: float) -> None:
    torch.manual_seed(0)
    model = machine(scale=scale)
    _, means = mixture(model)
    reach = 8 * model.sigma().max().item()
    axes = [torch.linspace(lo.item() - reach, hi.item() + reach, 1500, dtype=torch.float64)
            for lo, hi in zip(means.amin(0), means.amax(0), strict=True)]  # fmt: skip
    cell = math.prod((axis[1] - axis[0]).item() for axis in axes)
    total = torch.stack([
        (-model.free_energy(torch.cartesian_prod(part, axes[1]))).logsumexp(0) for part in axes[0].split(100)
    ]).logsumexp(0)  # fmt: skip
    assert (total + math.log(cell)).item() == pytest.approx(model.exact_log_partition().item(), abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_it_is_a_mixture_of_gaussians_for_any_parameters(scale: float) -> None:
    model = machine((1, 3, 3), 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    x = torch.rand(20, 1, 3, 3, dtype=torch.float64)
    found = -model.energy(x) - model.exact_log_partition()
    assert found.isfinite().all()
    torch.testing.assert_close(found.detach(), log_density(model, rows_of(x)), rtol=1e-9, atol=1e-8)


def test_the_free_energy_sums_the_hidden_units_of_the_energy() -> None:
    model = machine()
    v = torch.randn(6, 2, dtype=torch.float64)
    sigma, total = model.sigma(), []
    for h in torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64):
        u = (v - model.visible_bias) / sigma
        total.append(-(u.square().sum(1) / 2) + h @ model.hidden_bias + u @ (h @ model.weight))
    torch.testing.assert_close(-model.free_energy(v), torch.stack(total).logsumexp(0))


@torch.no_grad()
def test_gibbs_steps_leave_the_mixture_as_it_is() -> None:
    """Moments of draws from the mixture, before and after a step; elsewhere one step does not land on it."""
    torch.manual_seed(1)
    model, n = machine(scale=1.5), 200_000
    log_weights, means = mixture(model)
    chosen = torch.multinomial(log_weights.exp(), n, replacement=True)
    v = means[chosen] + model.sigma() * torch.randn(n, 2, dtype=torch.float64)
    stepped = model.visible_after(model.hidden_logits(v), generator=torch.Generator().manual_seed(2))
    elsewhere = model.visible_after(model.hidden_logits(means[:1].expand(n, -1)))
    deviation = v.std(0) / math.sqrt(n)
    for power in (1, 2, 3):
        spread = (v**power).std(0) * math.sqrt(2 / n)
        assert ((stepped**power).mean(0) - (v**power).mean(0)).abs().max() < (5 * spread).max(), power
    assert ((elsewhere.mean(0) - v.mean(0)).abs() > 20 * deviation).any()


@torch.no_grad()
def test_every_tempered_step_leaves_its_distribution_as_it_is() -> None:
    """Annealed weights with one temperature between are unbiased only if the step at it keeps p_beta."""
    torch.manual_seed(2)
    model = machine(scale=0.7)
    betas = torch.tensor([0.0, 0.5, 0.8, 1.0], dtype=torch.float64)
    log_w = model.anneal(200_000, betas, torch.Generator().manual_seed(0))
    w = (log_w - model.exact_log_partition()).exp()
    assert w.mean().item() == pytest.approx(1, abs=5 * (w.std() / math.sqrt(len(w))).item())
    assert 0.05 < w.std() < 5, "a schedule this coarse leaves weights that differ"


@torch.no_grad()
def test_annealing_from_both_sides_and_from_an_image() -> None:
    torch.manual_seed(3)
    model, n = machine((1, 2, 2), 4, scale=1.0), 4000
    exact, betas = model.exact_log_partition(), torch.linspace(0, 1, 60, dtype=torch.float64)
    log_weights, means = mixture(model)
    chosen = torch.multinomial(log_weights.exp(), n, replacement=True)
    v = means[chosen] + model.sigma() * torch.randn(n, 4, dtype=torch.float64)
    family = model.tempered()
    back = anneal_backwards(family, family.at(v), betas, torch.Generator().manual_seed(1))
    forth = model.anneal(n, betas, torch.Generator().manual_seed(1))
    assert forth.mean() < exact < back.mean()
    assert (forth.logsumexp(0) - math.log(n)).item() == pytest.approx(exact.item(), abs=0.03)
    assert -((-back).logsumexp(0) - math.log(n)).item() == pytest.approx(exact.item(), abs=0.03)
    start, log_q = family.at_images(v[:1].view(1, 1, 2, 2).expand(n, -1, -1, -1))
    assert torch.equal(start.v, v[:1].expand(n, -1)) and not log_q.any()
    log_p = annealed_log_prob(family, start, betas, torch.Generator().manual_seed(2)).logsumexp(0) - math.log(n)
    assert log_p.item() == pytest.approx(log_density(model, v[:1]).item(), abs=0.05)


@torch.no_grad()
def test_the_report_of_a_machine_of_real_pixels_comes_near_the_enumeration() -> None:
    torch.manual_seed(3)
    model = machine((1, 2, 2), 4, scale=1.0)
    images = torch.rand(5, 1, 2, 2, dtype=torch.float64)
    found = annealing_report(model, images, 1000, chains=200, chains_per_image=300)
    exact = log_density(model, images.flatten(1))
    assert not found.backwards_is_bound and found.exact.value == model.exact_log_partition().item()
    torch.testing.assert_close(found.conservative, exact, atol=0.1, rtol=0)
    torch.testing.assert_close(found.optimistic, exact, atol=0.1, rtol=0)


@torch.no_grad()
def test_a_machine_without_couplings_at_its_base_is_annealed_exactly() -> None:
    model = machine()
    model.weight.zero_()
    model.hidden_bias.zero_()
    model.base_mean.copy_(model.visible_bias)
    model.base_sigma.copy_(model.sigma())
    log_w = model.anneal(5, torch.linspace(0, 1, 6, dtype=torch.float64))
    torch.testing.assert_close(log_w, model.exact_log_partition().expand(5))


# --- learning ----------------------------------------------------------------------------------------------------


def test_the_way_uphill_is_the_gradient_of_autograd_times_a_positive_definite_matrix() -> None:
    """The gap's, F(model) - F(data), by the docstring's formula: A A' with A = [[sigma, 0], [W, 1]] for b and c."""
    torch.manual_seed(4)
    model = machine((1, 1, 4), 3)
    v_data, v_model = torch.rand(6, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    gap = model.free_energy(v_model).mean() - model.free_energy(v_data).mean()
    gap.backward()
    with torch.no_grad():
        pairs = [(v, model.hidden_logits(v).sigmoid()) for v in (v_data, v_model)]
        ascent = model.ascent(*pairs)
    assert torch.allclose(ascent["weight"], model.weight.grad)
    share = (1 - model.minimum_sigma / model.sigma()).detach()
    slope = model.log_sigma.grad / share
    assert torch.allclose(ascent["log_sigma"], share * slope.clamp(-1, 1))
    assert (slope.abs() > 1).any() and (slope.abs() < 1).any()
    w, sigma = model.weight.detach(), model.sigma().detach()
    a = torch.cat([torch.cat([sigma.diag(), w.T * 0], 1), torch.cat([w, torch.eye(3)], 1)]).double()
    # from (d/db, d/dc): the natural slopes are sigma d/db + W' d/dc and d/dc
    natural = torch.cat([sigma * model.visible_bias.grad + w.T @ model.hidden_bias.grad, model.hidden_bias.grad])
    assert torch.allclose(a.T @ torch.cat([model.visible_bias.grad, model.hidden_bias.grad]), natural)
    expected = a @ natural
    assert torch.allclose(torch.cat([ascent["visible_bias"], ascent["hidden_bias"]]), expected, atol=1e-10)


def two_clusters(n: int) -> torch.Tensor:
    """2x2 images around (0.2, 0.2, 0.8, 0.8) and its opposite, deviation 0.1."""
    torch.manual_seed(0)
    centre = torch.tensor([0.2, 0.2, 0.8, 0.8])
    which = torch.rand(n, 1) < 0.5
    return (torch.where(which, centre, 1 - centre) + 0.1 * torch.randn(n, 4)).clamp(0, 1).view(n, 1, 2, 2)


def test_learning_finds_clusters_and_narrows_the_deviations() -> None:
    data = two_clusters(400)
    torch.manual_seed(1)
    model = build_model("gaussian_rbm", (1, 2, 2), hidden_units=4, sampling_steps=100)
    list(train(model, Rows(data), TrainingConfig(epochs=60, batch_size=20, learning_rate=0.2)))
    with torch.no_grad():
        nats = (-model.energy(data).double() - model.exact_log_partition()).mean().item()

    def gaussians(sigma: float) -> float:
        return -4 * (math.log(sigma) + 0.5 * math.log(2 * math.pi) + 0.5)

    best, independent = gaussians(0.1) - math.log(2), gaussians(math.sqrt(0.3**2 + 0.1**2))
    assert independent + 2 < best - 1.3 < nats < best + 0.2
    assert model.sigma().max() < 0.2, "of pixels that deviate by 0.32"
    x = model.sample(500, generator=torch.Generator().manual_seed(0)).flatten(1)
    in_pairs = ((x[:, 0] - 0.5) * (x[:, 1] - 0.5) > 0) & ((x[:, 0] - 0.5) * (x[:, 3] - 0.5) < 0)
    assert in_pairs.float().mean() > 0.75, "of independent pixels a quarter"


def test_fixed_deviations_are_those_of_the_pixels() -> None:
    data = two_clusters(60)
    model = build_model("gaussian_rbm", (1, 2, 2), hidden_units=3, learn_sigma=False)
    list(train(model, Rows(data), TrainingConfig(epochs=2, batch_size=20)))
    assert torch.allclose(model.sigma(), data.flatten(1).std(0, correction=0), atol=1e-3)
    assert torch.allclose(model.base_mean, data.flatten(1).mean(0), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"persistent": False, "centred": False}, {"fast_learning_rate": 0.01}])
def test_resumed_in_mid_epoch_is_bit_identical(options: dict, tmp_path) -> None:
    def fresh():
        torch.manual_seed(3)
        return build_model("gaussian_rbm", (1, 2, 2), hidden_units=3, chains=8, momentum=0.5, **options)

    data, config = Rows(two_clusters(50)), TrainingConfig(epochs=3, batch_size=16, learning_rate=0.02, seed=4)
    whole = fresh()
    for i, progress in enumerate(train(whole, data, config)):
        if i == 5:
            torch.save(progress.state_dict(), tmp_path / "state.pt")
    resumed = fresh()
    list(train(resumed, data, config, resume=torch.load(tmp_path / "state.pt", weights_only=True)))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_loss_is_the_nats_of_the_reconstruction() -> None:
    model = machine((1, 2, 2), 4)
    x = torch.rand(5, 1, 2, 2, dtype=torch.float64)
    h = model.encode(x).detach()
    mean = (model.visible_bias + model.sigma() * (h @ model.weight)).detach()
    expected = -torch.distributions.Normal(mean, model.sigma().detach()).log_prob(rows_of(x)).sum(1).mean()
    metrics = ContrastiveDivergence(copy.deepcopy(model), 0.0)(Batch(x))
    assert torch.allclose(metrics["loss"], expected)


# --- images ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_completions_follow_the_conditional_mixture() -> None:
    """Of pixel 1 given pixel 0, whose components are weighed by how likely they make it."""
    torch.manual_seed(5)
    model, n = machine(scale=1.5, sampling_steps=60), 20_000
    model.visible_bias.fill_(0.5)
    model.log_sigma.fill_(math.log(0.04))  # narrow: hardly anything is cut off
    model.weight.clamp_(-3, 3)
    x = torch.zeros(n, 1, 1, 2, dtype=torch.float64)
    x[..., 0] = 0.55
    known = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    filled = model.complete(x, known, generator=torch.Generator().manual_seed(1))
    assert (filled[..., 0] == 0.55).all()
    log_weights, means = mixture(model)
    sigma = model.sigma()
    given = (log_weights + torch.distributions.Normal(means[:, 0], sigma[0]).log_prob(x[0, 0, 0, 0])).softmax(0)
    expected = (given * means[:, 1]).sum()
    spread = ((given * (means[:, 1] - expected).square()).sum() + sigma[1] ** 2).sqrt()
    assert filled[..., 1].mean().item() == pytest.approx(expected.item(), abs=(5 * spread / math.sqrt(n)).item())
    assert filled[..., 1].std().item() == pytest.approx(spread.item(), rel=0.05)


@torch.no_grad()
def test_samples_are_the_mixture_cut_off_and_temperature_widens_them() -> None:
    torch.manual_seed(6)
    model, n = machine(scale=1.0, sampling_steps=60), 20_000
    x = rows_of(model.sample(n, generator=torch.Generator().manual_seed(0)))
    log_weights, means = mixture(model)
    chosen = torch.multinomial(log_weights.exp(), n, replacement=True)
    expected = (means[chosen] + model.sigma() * torch.randn(n, 2, dtype=torch.float64)).clamp(0, 1)
    assert torch.allclose(x.mean(0), expected.mean(0), atol=0.02)
    assert torch.allclose(x.std(0), expected.std(0), atol=0.02)
    model.weight.zero_()
    model.visible_bias.fill_(0.5)
    model.log_sigma.fill_(math.log(0.05))
    warm = model.sample(n, temperature=4.0, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(rows_of(warm).std(0), 2 * model.sigma(), atol=0.005)


def test_surprise_is_the_squared_distance_from_the_reconstruction() -> None:
    model = machine((2, 2, 2), 4)
    x = torch.rand(3, 2, 2, 2, dtype=torch.float64)
    mean = model.visible_mean(model.encode(x)).view_as(x)
    expected = 0.5 * ((x - mean) / model.sigma().view(2, 2, 2)).square().sum(1, keepdim=True)
    assert torch.allclose(model.surprise_map(x), expected.detach())


@pytest.mark.parametrize("bad", [{"hidden_units": 0}, {"minimum_sigma": 0.0}, {"minimum_sigma": 1.0}, {"steps": 0},
                                 {"sampling_steps": 0}, {"sparsity_target": 2.0}])  # fmt: skip
def test_bad_arguments_name_themselves(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        build_model("gaussian_rbm", (1, 3, 3), **bad)


def test_too_many_hidden_units_are_not_enumerated() -> None:
    with pytest.raises(ValueError, match=r"2\^31"):
        build_model("gaussian_rbm", (1, 2, 2), hidden_units=31).exact_log_partition()
