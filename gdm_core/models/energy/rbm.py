"""A restricted Boltzmann machine: binary pixels v and binary hidden units h, each layer independent given the other.

    E(v, h) = - b'v - c'h - h'Wv,     p(v) = sum over h of exp(-E(v, h)) / Z = exp(-F(v)) / Z,
    F(v) = - b'v - sum_j softplus(c_j + W_j v)        (the free energy)

Everything but Z is exact and cheap; Z is enumerated for small machines and estimated by annealing for others.

References: "Information Processing in Dynamical Systems: Foundations of Harmony Theory" (Smolensky, 1986); learning
as in contrastive_divergence.py, with the options of fast_weights.py, centred_gradient.py and sparsity_target.py;
annealing as in "On the Quantitative Analysis of Deep Belief Networks" (Salakhutdinov and Murray, 2008). Ours: the
learning rate falls linearly to zero over the training run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.annealing import anneal
from gdm_core.contract import GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.energy.learning.centred_gradient import Offsets
from gdm_core.models.energy.learning.contrastive_divergence import bias_statistics, statistics
from gdm_core.models.energy.learning.learning_options import LearningOptions
from gdm_core.models.energy.learning.pixel_frequencies import PixelFrequencies
from gdm_core.models.energy.partition.enumeration import BLOCK, log_partition_of_layers
from gdm_core.models.energy.partition.tempered_rbm import TemperedMachine, bernoulli, softplus
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.gibbs_chains import complete_by_chains
from gdm_core.registry import register


@register("rbm", family="energy", paper="Smolensky, 1986; Hinton, 2002; Tieleman, 2008")
class RestrictedBoltzmannMachine(GenerativeModel):
    """Arguments: `steps` is the k of CD-k; `persistent` keeps `chains` Gibbs chains between the learning steps instead
    of starting at the data; `sampling_steps` is the length of the Gibbs chains that draw and complete images.
    Options of learning, none used unless asked for: `centred` gradients; hidden units that are on in a share
    `sparsity_target` of the images, at the weight `sparsity_cost`; persistent chains driven by fast weights with their
    own `fast_learning_rate`.
    """

    default_training = TrainingConfig(epochs=100, batch_size=32, learning_rate=0.2)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: int = 128,
        steps: int = 1,
        persistent: bool = True,
        chains: int = 100,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        sampling_steps: int = 1000,
        centred: bool = False,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        fast_learning_rate: float | None = None,
    ) -> None:
        super().__init__(data_shape)
        for name, value in {"hidden_units": hidden_units, "sampling_steps": sampling_steps}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.learning = LearningOptions(
            steps, persistent, chains, momentum, weight_decay, centred, sparsity_target, sparsity_cost,
            fast_learning_rate,
        )  # fmt: skip
        self.sampling_steps = sampling_steps
        self.weight = nn.Parameter(0.01 * torch.randn(hidden_units, self.dimensions))
        self.visible_bias = nn.Parameter(torch.zeros(self.dimensions))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.register_buffer("base_visible_bias", torch.zeros(self.dimensions))  # where annealing and sampling start

    # --- the two conditionals and the free energy, on vectors v (N, D) and h (N, hidden) ---

    def as_vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.weight.dtype)  # (N, D)

    def hidden_logits(self, v: Tensor) -> Tensor:
        return F.linear(v, self.weight, self.hidden_bias)  # (N, hidden)

    def visible_logits(self, h: Tensor) -> Tensor:
        return torch.addmm(self.visible_bias, h, self.weight)  # (N, D)

    def hidden_probability(self, v: Tensor) -> Tensor:
        """p(h = 1 | v), (N, hidden)."""
        return torch.sigmoid(self.hidden_logits(v))

    def free_energy(self, v: Tensor, hidden_logits: Tensor | None = None) -> Tensor:
        """F(v) of vectors (N, D), (N,); `hidden_logits` where they are known already."""
        logits = self.hidden_logits(v) if hidden_logits is None else hidden_logits
        return -(v @ self.visible_bias) - softplus(logits).sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """The free energy F(x), (N,) nats: p(x) = exp(-F(x)) / Z."""
        return self.free_energy(self.as_vectors(self.check_images(x)))

    # --- learning ---

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        yield Phase("contrastive divergence", self.learning.update(self, config.learning_rate), config.epochs)

    def base(self) -> PixelFrequencies:
        """What keeps `base_visible_bias` at the training pixels' log-odds."""
        return PixelFrequencies(self.base_visible_bias, self.visible_bias)

    def ascent(
        self, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor], offsets: Offsets | None = None
    ) -> dict[str, Tensor]:
        """The estimated gradient for each parameter, from pairs (v, probabilities of h); centred at offsets."""
        ascent = statistics(data, model)
        if offsets is not None:
            offsets.centre(ascent)
        return ascent

    def climb(self, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor], learning_rate: float) -> None:
        """Add `learning_rate` times the gradient to the parameters: to the weights in the products themselves."""
        for (v, h), sign in ((data, 1), (model, -1)):
            self.weight.addmm_(h.T, v, alpha=sign * learning_rate / len(v))
        biases = bias_statistics(data, model)
        self.visible_bias.add_(biases["visible_bias"], alpha=learning_rate)
        self.hidden_bias.add_(biases["hidden_bias"], alpha=learning_rate)

    def reconstruction_nats(self, v: Tensor, h: Tensor) -> Tensor:
        """-log p(v | h), the mean over images, at probabilities h (N, hidden)."""
        return F.binary_cross_entropy_with_logits(self.visible_logits(h), v, reduction="sum") / len(v)

    # --- Gibbs sampling ---

    @torch.no_grad()
    def gibbs_step(self, v: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """h ~ p(h | v), then v ~ p(v | h), with all energies divided by `temperature`; (N, D) to (N, D)."""
        return self.visible_after(self.hidden_logits(v), temperature, generator)

    @torch.no_grad()
    def visible_after(
        self, hidden_logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The Gibbs step from the logits of h (N, hidden) on: v (N, D)."""
        for_hidden, for_visible = self.uniforms(len(hidden_logits), generator)
        h = bernoulli(hidden_logits, for_hidden, temperature)
        return bernoulli(self.visible_logits(h), for_visible, temperature)

    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every Gibbs step from x on, without end."""
        v = self.as_vectors(self.check_images(x))
        while True:
            v = self.gibbs_step(v, temperature, generator)
            yield v.view(len(x), *self.data_shape)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n Gibbs chains of `sampling_steps` steps, binary (n, C, H, W).

        The chains start at noise with the training pixels' frequencies. Raises ValueError for labels.
        """
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield where the chains of `sample` start, then where they stand at up to 50 moments on the way."""
        noise = draw_uniforms(self, n, labels, temperature, generator)
        start = self.chain_start(noise)
        for v in moments(lambda v: self.gibbs_step(v, temperature, generator), start, self.sampling_steps):
            yield v.reshape(n, *self.data_shape)

    def chain_start(self, noise: Tensor) -> Tensor:
        """Pixels with the training images' frequencies, of uniforms (n, C, H, W): (n, D)."""
        return bernoulli(self.base_visible_bias, self.as_vectors(noise))

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, by Gibbs chains whose known pixels are held fixed."""
        ends = complete_by_chains(self, x, known, temperature, generator, self.chain_start, self.gibbs_step)
        return ends.view_as(x)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Gibbs chain only comes near its distribution."""
        return bool(known.all())

    def uniforms(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """One uniform per unit in one draw: (n, hidden) and (n, D). A generator draws on its own device."""
        device = self.device if generator is None else generator.device
        units = (len(self.hidden_bias), self.dimensions)
        uniforms = torch.rand(n, sum(units), generator=generator, dtype=self.weight.dtype, device=device)
        return uniforms.to(self.device).split(units, dim=1)

    # --- the normalising constant ---

    def tempered(self) -> TemperedMachine:
        """The family from the machine that knows only the pixels' frequencies to this one."""
        return TemperedMachine(self)

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas`, increasing from 0 to 1: log w (n,), float64."""
        return anneal(self.tempered(), n, betas, generator)

    def enumerable_units(self) -> int:
        """The size of the smaller layer: the other one is summed in closed form."""
        return min(self.weight.shape)

    def exact_log_partition(self) -> Tensor:
        """log Z, summing the smaller layer over all its states, a float64 scalar. ValueError above 30 units."""
        return log_partition_of_layers(self.weight, self.hidden_bias, self.visible_bias)

    # --- views of the image ---

    @torch.no_grad()
    def surprise_map(self, x: Tensor) -> Tensor:
        """-log p(x_i | all other pixels) in nats, (N, 1, H, W), summed over channels: softplus(F(x) - F(x, i flipped)).

        Exact. Flipping pixel i moves the hidden logits by (1 - 2 x_i) W_i, so no flipped image is ever passed through.
        """
        v = self.as_vectors(self.check_images(x))
        block = max(1, BLOCK // self.weight.numel())
        surprise = torch.cat([softplus(self._flip_gain(part)) for part in v.split(block)])
        return surprise.view_as(x).sum(1, keepdim=True)

    def _flip_gain(self, v: Tensor) -> Tensor:
        """F(v) - F(v with pixel i flipped) for every pixel, (N, D)."""
        sign, logits = 1 - 2 * v, self.hidden_logits(v)
        moved = torch.addcmul(logits[:, :, None], sign[:, None, :], self.weight)  # (N, hidden, D)
        return sign * self.visible_bias + softplus(moved).sum(1) - softplus(logits).sum(1, keepdim=True)

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1 | x), (N, hidden)."""
        return self.hidden_probability(self.as_vectors(self.check_images(x)))

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """[p(h = 1 | x)], (N, hidden)."""
        return [self.encode(x)]

    def reconstruct(self, x: Tensor) -> Tensor:
        """p(v = 1 | h) at h = p(h = 1 | x), (N, C, H, W)."""
        return torch.sigmoid(self.visible_logits(self.encode(x))).view_as(x)

    def filters(self) -> Tensor:
        """The incoming weights of each hidden unit, (hidden, C, H, W)."""
        return self.weight.detach().reshape(-1, *self.data_shape)
