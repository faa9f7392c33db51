"""A restricted Boltzmann machine of real pixels: each hidden unit shifts the mean of a Gaussian image when it is on.

    E(v, h) = sum_i (v_i - b_i)^2 / (2 sigma_i^2) - c'h - h'W ((v - b) / sigma),      F(v) its free energy,
    p(v | h) = N(b + sigma W'h, sigma^2),      p(h = 1 | v) = sigmoid(c + W ((v - b) / sigma)),
    Z = prod_i (sigma_i sqrt(2 pi)) sum over h of exp(c'h + |W'h|^2 / 2)

A mixture of 2^hidden Gaussians that share their deviations, hence a density on R^D for any parameters; pixels are its
values in [0, 1]: what it puts outside is lost, so it never claims more there than a density on [0, 1]^D could.

References: "Reducing the Dimensionality of Data with Neural Networks" (Hinton and Salakhutdinov, 2006) and "Learning
Multiple Layers of Features from Tiny Images" (Krizhevsky, 2009), whose energy has v / sigma where this one has
(v - b) / sigma: the same densities, by c - W (b / sigma) in the place of c; learnt deviations as in "Improved Learning
of Gaussian-Bernoulli Restricted Boltzmann Machines" (Cho, Ilin and Raiko, 2011). Ours: a floor under sigma; its
slope is cut off; the learning rate falls linearly to zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.annealing import anneal
from gdm_core.contract import GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.energy.gaussian_pixels import START_MEAN, START_SIGMA, PixelMoments, draw_noise, moments_start
from gdm_core.models.energy.learning.centred_gradient import Offsets
from gdm_core.models.energy.learning.contrastive_divergence import statistics
from gdm_core.models.energy.learning.learning_options import LearningOptions
from gdm_core.models.energy.partition.enumeration import log_sum_of_gaussians
from gdm_core.models.energy.partition.tempered_gaussian_rbm import TemperedGaussianMachine
from gdm_core.models.energy.partition.tempered_rbm import bernoulli, softplus
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.gibbs_chains import complete_by_chains
from gdm_core.registry import register


@register("gaussian_rbm", family="energy", paper="Hinton and Salakhutdinov, 2006; Krizhevsky, 2009; Cho et al., 2011")
class GaussianRBM(GenerativeModel):
    """Parameters: `weight` W (hidden, D), `visible_bias` b (D), `hidden_bias` c (hidden), `log_sigma` (D), with sigma =
    `minimum_sigma` + exp(log_sigma); all unconstrained. Chains run on R^D; images are their pixels cut off at 0 and 1.

    `learn_sigma` false keeps the deviations of the training pixels. `levels` is the number of levels before
    dequantising, None where there were none. The other arguments are those of `rbm`. Defaults chosen on validation.
    """

    default_training = TrainingConfig(epochs=60, batch_size=32, learning_rate=0.05)
    pixel_kinds = ("real",)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: int = 128,
        steps: int = 3,
        persistent: bool = True,
        chains: int = 100,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        sampling_steps: int = 1000,
        centred: bool = True,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        fast_learning_rate: float | None = None,
        learn_sigma: bool = True,
        minimum_sigma: float = 0.03,
        levels: int | None = None,
    ) -> None:
        super().__init__(data_shape, "real", levels)
        for name, value in {"hidden_units": hidden_units, "sampling_steps": sampling_steps}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < minimum_sigma < 1:
            raise ValueError(f"minimum_sigma must lie between 0 and 1, got {minimum_sigma}")
        self.learning = LearningOptions(
            steps, persistent, chains, momentum, weight_decay, centred, sparsity_target, sparsity_cost,
            fast_learning_rate,
        )  # fmt: skip
        self.sampling_steps, self.learn_sigma, self.minimum_sigma = sampling_steps, learn_sigma, minimum_sigma
        self.weight = nn.Parameter(0.01 * torch.randn(hidden_units, self.dimensions))
        self.visible_bias = nn.Parameter(torch.full((self.dimensions,), START_MEAN))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.log_sigma = nn.Parameter(torch.full((self.dimensions,), math.log(START_SIGMA)))
        self.register_buffer("base_mean", self.visible_bias.detach().clone())  # where annealing and sampling start
        self.register_buffer("base_sigma", self.sigma().detach())

    # --- the two conditionals and the free energy, on vectors v (N, D) and h (N, hidden) ---

    def sigma(self) -> Tensor:
        return self.minimum_sigma + self.log_sigma.exp()  # (D,)

    def as_vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.weight.dtype)  # (N, D)

    def scaled(self, v: Tensor) -> Tensor:
        return (v - self.visible_bias) / self.sigma()  # (N, D)

    def hidden_logits(self, v: Tensor) -> Tensor:
        return F.linear(self.scaled(v), self.weight, self.hidden_bias)  # (N, hidden)

    def visible_mean(self, h: Tensor) -> Tensor:
        """The mean of p(v | h), (N, D)."""
        return torch.addcmul(self.visible_bias, self.sigma(), h @ self.weight)

    def free_energy(self, v: Tensor, hidden_logits: Tensor | None = None) -> Tensor:
        """F(v) of vectors (N, D), (N,); `hidden_logits` where they are known already."""
        logits = self.hidden_logits(v) if hidden_logits is None else hidden_logits
        return 0.5 * self.scaled(v).square().sum(1) - softplus(logits).sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """The free energy F(x), (N,) nats: p(x) = exp(-F(x)) / Z, a density with respect to x."""
        return self.free_energy(self.as_vectors(self.check_images(x)))

    # --- learning ---

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        yield Phase("contrastive divergence", self.learning.update(self, config.learning_rate), config.epochs)

    def base(self) -> PixelMoments:
        """What keeps `base_mean` and `base_sigma` at the training pixels' moments."""
        return PixelMoments(self)

    def ascent(
        self, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor], offsets: Offsets | None = None
    ) -> dict[str, Tensor]:
        """The way uphill for each parameter, from pairs (v, probabilities of h).

        The gradient of the machine in u = (v - b) / sigma with a linear term beta'u, which is 0 and whose move is put
        into b and c: sigma Delta beta and W Delta beta. So small deviations do not make large steps. The slope of
        log sigma is cut off at -1 and 1: a chain far out would send sigma further out.
        """
        (u_data, h_data), (u_model, h_model) = ((self.scaled(v), h) for v, h in (data, model))
        ascent = statistics((u_data, h_data), (u_model, h_model))
        if offsets is not None:
            offsets.centre(ascent)
        ascent["hidden_bias"] += self.weight @ ascent["visible_bias"]
        ascent["visible_bias"] *= self.sigma()
        slopes = ((u * (u - h @ self.weight)).mean(0) for u, h in ((u_data, h_data), (u_model, h_model)))
        slope = (next(slopes) - next(slopes)).clamp(-1, 1)  # of log sigma
        ascent["log_sigma"] = slope * (1 - self.minimum_sigma / self.sigma()) * self.learn_sigma
        return ascent

    def reconstruction_nats(self, v: Tensor, h: Tensor) -> Tensor:
        """-log p(v | h), the mean over images, at probabilities h (N, hidden)."""
        squares = (self.scaled(v) - h @ self.weight).square().sum(1).mean()
        return 0.5 * squares + (self.sigma().log() + 0.5 * math.log(2 * math.pi)).sum()

    # --- Gibbs sampling ---

    def gibbs_step(self, v: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """h ~ p(h | v), then v ~ p(v | h), with all energies divided by `temperature`; (N, D) to (N, D)."""
        return self.visible_after(self.hidden_logits(v), temperature, generator)

    @torch.no_grad()
    def visible_after(
        self, hidden_logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """h given its logits (N, hidden), then v ~ p(v | h), (N, D); all energies divided by `temperature`."""
        uniforms, normals = draw_noise(self, len(hidden_logits), generator)
        h = bernoulli(hidden_logits, uniforms, temperature)
        return self.visible_mean(h).addcmul_(math.sqrt(temperature) * self.sigma(), normals)

    @torch.no_grad()
    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every Gibbs step from x on, without end."""
        v = self.as_vectors(self.check_images(x))
        while True:
            v = self.gibbs_step(v, temperature, generator)
            yield self.as_images(v)

    def as_images(self, v: Tensor) -> Tensor:
        """Vectors (N, D) cut off at 0 and 1, (N, C, H, W)."""
        return v.clamp(0, 1).view(len(v), *self.data_shape)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n Gibbs chains of `sampling_steps` steps from noise with the data's moments, in [0, 1]."""
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    @torch.no_grad()
    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield where the chains of `sample` start, then where they stand at up to 50 moments on the way."""
        start = moments_start(self, draw_uniforms(self, n, labels, temperature, generator))
        yield from map(self.as_images, moments(
            lambda v: self.gibbs_step(v, temperature, generator), start, self.sampling_steps
        ))  # fmt: skip

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, by Gibbs chains whose known pixels are held fixed."""
        start = partial(moments_start, self)
        return self.as_images(complete_by_chains(self, x, known, temperature, generator, start, self.gibbs_step))

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Gibbs chain only comes near its distribution."""
        return bool(known.all())

    # --- the normalising constant ---

    def tempered(self) -> TemperedGaussianMachine:
        """The family from independent pixels with the training images' moments to this machine."""
        return TemperedGaussianMachine(self)

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas`, increasing from 0 to 1: log w (n,), float64."""
        return anneal(self.tempered(), n, betas, generator)

    def enumerable_units(self) -> int:
        """The hidden units: the pixels are integrated in closed form."""
        return len(self.hidden_bias)

    @torch.no_grad()
    def exact_log_partition(self) -> Tensor:
        """log Z, summing the hidden units over all their states, a float64 scalar. ValueError above 30 units."""
        pixels = (self.sigma().double().log() + 0.5 * math.log(2 * math.pi)).sum()
        return pixels + log_sum_of_gaussians(self.weight, self.hidden_bias)

    @torch.no_grad()
    def surprise_map(self, x: Tensor) -> Tensor:
        """(x_i - its mean-field reconstruction)^2 / (2 sigma_i^2) in nats, (N, 1, H, W), summed over channels."""
        v = self.as_vectors(self.check_images(x))
        off = self.scaled(v) - self.hidden_logits(v).sigmoid() @ self.weight
        return 0.5 * off.square().view_as(x).sum(1, keepdim=True)

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1 | x), (N, hidden)."""
        return self.hidden_logits(self.as_vectors(self.check_images(x))).sigmoid()

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """[p(h = 1 | x)], (N, hidden)."""
        return [self.encode(x)]

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(v | h) at h = p(h = 1 | x), cut off at 0 and 1, (N, C, H, W)."""
        return self.as_images(self.visible_mean(self.encode(x)))

    def filters(self) -> Tensor:
        """What each hidden unit adds to the mean image, sigma W, (hidden, C, H, W)."""
        return (self.sigma() * self.weight).detach().reshape(-1, *self.data_shape)
