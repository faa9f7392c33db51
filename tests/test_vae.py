"""Laws of the variational autoencoder: its bounds stay below an exact density, which quadrature over z gives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.autoencoders import vae
from gdm_core.models.autoencoders.vae import VAE
from gdm_core.training import train


def small(pixels: str = "binary", data_shape=(1, 3, 3), latent_units: int = 1, **arguments) -> VAE:
    """A model in float64 whose z matters to x, and whose posterior is wide enough for importance sampling."""
    arguments = {"hidden_units": 8, "minimum_log_variance": -3.0, **arguments}
    model = VAE(data_shape, latent_units=latent_units, pixels=pixels, **arguments).double()
    for network, scale in ((model.encoder, 0.2), (model.decoder, 0.8)):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=scale)
    return model


def binary_images() -> Tensor:
    """All 512 binary 3x3 images."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64).view(-1, 1, 3, 3)


def exact_log_prob(model: VAE, x: Tensor) -> Tensor:
    """log of the integral of p(z) p(x | z) over a one-dimensional z, by the trapezoidal rule."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    prior = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) + math.log(float(z[1] - z[0]))
    joint = model.conditional_log_prob(x, z.view(-1, 1, 1).expand(-1, len(x), 1)) + prior.unsqueeze(1)
    return joint.logsumexp(0)


@torch.no_grad()
def test_the_binary_density_sums_to_one_and_importance_weights_find_it() -> None:
    model, x = small(), binary_images()
    exact = exact_log_prob(model, x)
    assert float(exact.logsumexp(0)) == pytest.approx(0, abs=1e-6)
    k = 20_000
    estimate = model.log_weights(x[::37], k, torch.Generator().manual_seed(0)).logsumexp(0) - math.log(k)
    assert torch.allclose(estimate, exact[::37], atol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("pixels", ["binary", "real"])
def test_elbo_is_below_the_importance_weighted_bound_is_below_the_exact_value(pixels: str) -> None:
    model = small(pixels)
    x = binary_images()[5::60] if pixels == "binary" else torch.rand(8, 1, 3, 3, dtype=torch.float64)
    log_weights = model.log_weights(x, 20_000, torch.Generator().manual_seed(1))
    elbo = log_weights.mean(0)
    bound = (log_weights.view(-1, 20, len(x)).logsumexp(1) - math.log(20)).mean(0)
    exact = exact_log_prob(model, x)
    assert (elbo < bound - 1e-3).all() and (bound < exact - 1e-4).all()


@torch.no_grad()
def test_the_gaussian_density_integrates_to_one_over_the_real_line() -> None:
    model = small("real", data_shape=(1, 1, 1))
    x = torch.linspace(-60, 61, 60_501, dtype=torch.float64)
    z = torch.randn(5, 1, 1, dtype=torch.float64).expand(5, len(x), 1)
    density = model.conditional_log_prob(x.view(-1, 1, 1, 1), z).exp()
    assert torch.allclose(density.sum(1) * (x[1] - x[0]), torch.ones(5, dtype=torch.float64), atol=1e-5)


@torch.no_grad()
def test_weights_find_the_gaussian_density() -> None:
    model, x, k = small("real", data_shape=(1, 1, 2)), torch.rand(6, 1, 1, 2, dtype=torch.float64), 50_000
    estimate = model.log_weights(x, k, torch.Generator().manual_seed(0)).logsumexp(0) - math.log(k)
    assert torch.allclose(estimate, exact_log_prob(model, x), atol=0.1)


@torch.no_grad()
def test_the_closed_divergence_is_the_mean_of_log_q_over_p() -> None:
    model, x = small(latent_units=3), binary_images()[::100]
    mean, log_variance = model.posterior(x)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    z = posterior.sample((40_000,))
    prior = torch.distributions.Normal(torch.zeros_like(z), torch.ones_like(z))
    drawn = (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
    error = drawn.std(0) / 200
    assert ((model.divergence(x) - drawn.mean(0)).abs() < 5 * error).all()


@torch.no_grad()
def test_the_loss_is_the_negative_elbo_and_its_parts_sum_to_it() -> None:
    model, x = small(latent_units=2), binary_images()[3:4].expand(20_000, 1, 3, 3)
    metrics = model.loss(Batch(x))
    assert float(metrics["loss"]) == pytest.approx(float(metrics["reconstruction"] + metrics["kl"]))
    elbo = model.log_weights(x[:1], 20_000, torch.Generator().manual_seed(3))
    assert float(metrics["loss"]) == pytest.approx(-float(elbo.mean()), abs=6 * float(elbo.std()) / 141)


@torch.no_grad()
def test_more_importance_samples_tighten_the_loss_towards_the_exact_value() -> None:
    model, x = small(), binary_images()[7:8].expand(4_000, 1, 3, 3)
    losses = []
    for model.importance_samples in (1, 5, 50):
        losses.append(float(model.loss(Batch(x))["loss"]))
    exact = -float(exact_log_prob(model, x[:1]))
    assert losses[0] > losses[1] > losses[2] > exact - 0.02


def test_training_noise_is_independent_for_every_image() -> None:
    model, x = small(), binary_images()[7:8].expand(2, 1, 3, 3)
    seen: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.loss(Batch(x))
    assert not torch.equal(seen[0][0, 0], seen[0][0, 1])


@torch.no_grad()
def test_an_image_has_the_same_weights_alone_in_company_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VAE((1, 8, 8))
    x = (torch.rand(7, 1, 8, 8) < 0.3).float()

    def weights(images: Tensor) -> Tensor:
        return model.log_weights(images, 25, torch.Generator().manual_seed(4))

    together = weights(x)
    assert together.shape == (25, 7)
    assert torch.allclose(weights(x[3:4])[:, 0], together[:, 3], atol=1e-5)
    monkeypatch.setattr(vae, "ACTIVATIONS_AT_ONCE", 3 * 7 * 200)
    assert torch.allclose(weights(x), together, atol=1e-5)


@pytest.mark.parametrize("pixels", ["binary", "real"])
def test_samples_are_images_of_their_kind_and_a_seed_repeats(pixels: str) -> None:
    model = VAE((3, 4, 5), pixels=pixels)

    def draw(seed: int, temperature: float = 1.0) -> Tensor:
        return model.sample(6, temperature=temperature, generator=torch.Generator().manual_seed(seed))

    assert draw(0).shape == (6, 3, 4, 5)
    model.check_images(draw(0))
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    with pytest.raises(ValueError, match="labels"):
        model.sample(2, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="temperature"):
        model.sample(2, temperature=-1.0)
    with pytest.raises(ValueError, match="n must"):
        model.sample(0)


@torch.no_grad()
def test_temperature_scales_the_prior_and_means_are_the_average_sample() -> None:
    model = small(latent_units=2)
    cold = model.sample(20_000, temperature=0.0, generator=torch.Generator().manual_seed(0)).mean(0)
    assert torch.allclose(cold, model.decode(torch.zeros(1, 2, dtype=torch.float64))[0], atol=0.02)


@torch.no_grad()
def test_encoding_decoding_and_reconstructing_agree() -> None:
    model, x = VAE((1, 5, 7), latent_units=4), torch.ones(2, 1, 5, 7)
    assert model.encode(x).shape == (2, 4) and model.sample_latent(3).shape == (3, 4)
    assert torch.equal(model.reconstruct(x), model.decode(model.encode(x)))
    assert torch.equal(model.encode(x), model.posterior(x)[0])


@torch.no_grad()
@pytest.mark.parametrize("pixels", ["binary", "real"])
def test_any_weights_give_finite_numbers(pixels: str) -> None:
    model = VAE((1, 3, 3), pixels=pixels)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=30.0)
    assert torch.isfinite(model.log_weights(torch.ones(4, 1, 3, 3), 10)).all()


@pytest.mark.parametrize("arguments", [{}, {"importance_samples": 3}, {"pixels": "real"}])
def test_every_parameter_gets_a_gradient(arguments: dict) -> None:
    model = VAE((1, 3, 3), **arguments)
    model.loss(Batch((torch.rand(8, 1, 3, 3) < 0.5).float()))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


class Images:
    """Eleven images: with a batch size of 4, the last batch of an epoch is smaller."""

    def __init__(self) -> None:
        self.images = (torch.rand(11, 1, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5).float()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows])


@pytest.mark.parametrize("argument", ["hidden_units", "latent_units", "importance_samples"])
def test_a_size_below_one_is_refused_by_name(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        VAE((1, 3, 3), **{argument: 0})


def test_half_precision_training_keeps_losses_and_weights_in_full() -> None:
    model = VAE((1, 3, 3))
    config = TrainingConfig(epochs=1, batch_size=4, precision="bfloat16")
    *_, last = train(model, Images(), config)
    assert all(total.dtype == torch.float32 and torch.isfinite(total) for total in last._totals.values())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
