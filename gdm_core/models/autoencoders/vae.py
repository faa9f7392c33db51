"""A variational autoencoder: a decoder turns a normal code z into an image, an encoder guesses which z made an image.

Both are trained together on a lower bound of the likelihood, the ELBO
    log p(x) >= E_q[log p(x | z)] - KL(q(z | x) || p(z)),   p(z) = N(0, I),   q(z | x) = N(mu(x), diag sigma^2(x)),
or, with more than one importance sample, on the tighter bound E[log 1/k sum_i p(x, z_i) / q(z_i | x)].

Papers: "Auto-Encoding Variational Bayes", Kingma & Welling, 2014; the bound by importance weights: "Importance Weighted
Autoencoders", Burda, Grosse & Salakhutdinov, 2016. Two tanh layers of 200 units on each side, as in the latter. Ours:
Adam in place of Adagrad, and the decoder's variance for real pixels cannot fall below a floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.layers.latent_noise import check_latent_sampling, draw_normals
from gdm_core.registry import register

ACTIVATIONS_AT_ONCE = 2**23  # floats in one layer while weights are computed: 32 MB
LARGEST_LOG_VARIANCE = 20.0  # of the posterior; the prior's is 0


def multilayer(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two tanh layers and a linear one."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, outputs)
    )


@register("vae", family="autoencoder", paper="Kingma & Welling, 2014")
class VAE(GenerativeModel):
    """Binary pixels have a Bernoulli decoder, real ones a Gaussian decoder with a learned variance per pixel.

    The Gaussian's density is one with respect to x on the whole real line, evaluated for x in [0, 1]: what it puts
    outside is lost, so it never claims more than a density on [0, 1] could. Its log-variance is
    `minimum_log_variance` + softplus(.), so that it stays finite and normalised for any weights. The default floor,
    a standard deviation of 0.018, is that of the dequantising noise of 17 levels.
    """

    default_training = TrainingConfig(epochs=100, batch_size=64, learning_rate=2e-3)
    pixel_kinds = ("binary", "real")

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: int = 200,
        latent_units: int = 20,
        importance_samples: int = 1,
        pixels: Literal["binary", "real"] = "binary",
        levels: int | None = None,
        minimum_log_variance: float = -8.0,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        for name, value in (("hidden_units", hidden_units), ("latent_units", latent_units)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if importance_samples < 1:
            raise ValueError(f"importance_samples must be at least 1, got {importance_samples}")
        self.hidden_units, self.latent_units = hidden_units, latent_units
        self.importance_samples = importance_samples
        self.minimum_log_variance = minimum_log_variance
        numbers_per_pixel = 1 if pixels == "binary" else 2
        self.encoder = multilayer(self.dimensions, hidden_units, 2 * latent_units)
        self.decoder = multilayer(latent_units, hidden_units, numbers_per_pixel * self.dimensions)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (N, latent); ValueError for what are not images of its kind."""
        mean, raw = self.encoder(self.check_images(x).flatten(1)).to(x.dtype).chunk(2, dim=-1)
        return mean, LARGEST_LOG_VARIANCE * (raw / LARGEST_LOG_VARIANCE).tanh()  # no weights make its exp overflow

    def pixel_distribution(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the Gaussian p(x | z), each (..., D); the mean in (0, 1) as in the paper."""
        mean, raw = self.decoder(z).to(z.dtype).chunk(2, dim=-1)
        return mean.sigmoid(), self.minimum_log_variance + F.softplus(raw)

    def conditional_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats for images (N, C, H, W) and codes (k, N, latent), (k, N)."""
        x = x.flatten(1)
        if self.pixels == "binary":
            logits = self.decoder(z).to(x.dtype)  # (k, N, D); sums need full precision
            return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        mean, log_variance = self.pixel_distribution(z)
        squares = (x - mean).square() * (-log_variance).exp()
        return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(-1)

    def log_weights(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x, z) - log q(z | x) for k draws of z from q(z | x), (k, N). Memory does not grow with k * N beyond
        the result: the draws are worked off in parts.
        """
        posterior = self.posterior(x)
        noise = draw_normals(self, (k, self.latent_units), generator)
        floats_per_draw = max(1, len(x) * max(self.hidden_units, 2 * self.dimensions))
        parts = noise.unsqueeze(1).split(max(1, ACTIVATIONS_AT_ONCE // floats_per_draw))
        return torch.cat([self._log_weights(x, posterior, part)[0] for part in parts])

    def _log_weights(self, x: Tensor, posterior: tuple[Tensor, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """The log weights and log p(x | z) within them, each (k, N), for noise (k, N or 1, latent)."""
        mean, log_variance = posterior
        z = mean + (0.5 * log_variance).exp() * noise  # (k, N, latent)
        conditional = self.conditional_log_prob(x, z)
        prior_over_posterior = 0.5 * (noise.square() + log_variance - z.square()).sum(-1)  # the 2 pi cancel
        return conditional + prior_over_posterior, conditional

    def divergence(self, x: Tensor) -> Tensor:
        """KL(q(z | x) || p(z)) in nats, in closed form, (N,)."""
        return _divergence(*self.posterior(x))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative bound in nats per image. Its parts sum to it for one importance sample, the ELBO."""
        posterior = self.posterior(batch.images)
        noise = torch.randn_like(posterior[0].expand(self.importance_samples, -1, -1))
        log_weights, conditional = self._log_weights(batch.images, posterior, noise)
        reconstruction, divergence = -conditional.mean(), _divergence(*posterior).mean()
        if self.importance_samples == 1:
            loss = reconstruction + divergence
        else:
            loss = math.log(self.importance_samples) - log_weights.logsumexp(0).mean()
        return {"loss": loss, "reconstruction": reconstruction, "kl": divergence}

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """n images of the model's pixel kind, (n, C, H, W): z from the prior, its standard deviation scaled by
        `temperature`, then x from p(x | z); real pixels that fall outside [0, 1] are put on its edge.
        """
        check_latent_sampling(self, n, labels, temperature)
        z = temperature * self.sample_latent(n, generator)
        noise = draw_normals(self, (n, self.dimensions), generator)
        if self.pixels == "binary":
            on = torch.special.ndtr(noise) < self.decode(z).flatten(1)  # the noise as uniform numbers
            return on.to(z.dtype).view(n, *self.data_shape)
        mean, log_variance = self.pixel_distribution(z)
        return (mean + (0.5 * log_variance).exp() * noise).clamp(0, 1).view(n, *self.data_shape)

    def sample_latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n codes from N(0, I), (n, latent)."""
        return draw_normals(self, (n, self.latent_units), generator)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z | x), (N, latent)."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z), (N, C, H, W)."""
        mean = self.decoder(z).sigmoid() if self.pixels == "binary" else self.pixel_distribution(z)[0]
        return mean.view(len(z), *self.data_shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean image of the mean code, (N, C, H, W)."""
        return self.decode(self.encode(x))


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
