"""An RBM of images and their labels: one machine that draws images of a class and says which class an image has.

    E(v, y, h) = - b'v - d_y - c'h - h'Wv - h'U_y,      p(v, y) = exp(-F(v, y)) / Z,
    F(v, y) = - b'v - d_y - sum_j softplus(c_j + U_jy + W_j v)
    p(y | v) = exp(-F(v, y)) / sum_k exp(-F(v, k)),     energy(v) = - log sum_y exp(-F(v, y))

The label is one visible unit of K values. Given the pixels it is classified exactly; given the hidden units it is drawn
from the softmax of d_y + h'U_y beside the pixels. Z is enumerated for small machines and estimated by annealing.

Paper: "Classification using discriminative restricted Boltzmann machines" (Larochelle and Bengio, 2008); learning as in
hybrid_divergence.py. Changed: persistent chains, a learning rate that falls linearly to zero, and class_balance.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.annealing import anneal
from gdm_core.contract import GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.raster_model import choose
from gdm_core.layers.sampling_arguments import check_completion, check_labels, draw_uniforms
from gdm_core.models.energy.learning.hybrid_divergence import HybridDivergence
from gdm_core.models.energy.partition.enumeration import BLOCK
from gdm_core.models.energy.partition.label_partition import log_partition_with_labels
from gdm_core.models.energy.partition.tempered_label_rbm import TemperedLabelMachine
from gdm_core.models.energy.partition.tempered_rbm import bernoulli, softplus
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.registry import register


class Uniforms(NamedTuple):
    """The randomness of one Gibbs step of n chains: (n, hidden), (n, D) and (n, 1)."""

    hidden: Tensor
    visible: Tensor
    label: Tensor


@register("label_rbm", family="energy", paper="Larochelle and Bengio, 2008")
class LabelRBM(GenerativeModel):
    """`discriminative_weight`: what the slope of log p(y | x) counts beside that of log p(x, y). Rest: see `rbm`."""

    default_training = TrainingConfig(epochs=100, batch_size=32, learning_rate=0.2)

    def __init__(
        self,
        data_shape: Sequence[int],
        classes: int = 10,
        hidden_units: int = 128,
        discriminative_weight: float = 3.0,
        steps: int = 1,
        persistent: bool = True,
        chains: int = 100,
        sampling_steps: int = 1000,
    ) -> None:
        super().__init__(data_shape)
        counts = {"classes": classes, "hidden_units": hidden_units, "steps": steps, "chains": chains,
                  "sampling_steps": sampling_steps}  # fmt: skip
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not discriminative_weight >= 0:
            raise ValueError(f"discriminative_weight must be at least 0, got {discriminative_weight}")
        self.classes, self.discriminative_weight = classes, discriminative_weight
        self.steps, self.chains, self.sampling_steps = steps, chains if persistent else None, sampling_steps
        self.weight = nn.Parameter(0.01 * torch.randn(hidden_units, self.dimensions))
        self.label_weight = nn.Parameter(0.01 * torch.randn(hidden_units, classes))
        self.visible_bias = nn.Parameter(torch.zeros(self.dimensions))
        self.label_bias = nn.Parameter(torch.zeros(classes))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.register_buffer("base_visible_bias", torch.zeros(self.dimensions))  # where annealing and sampling start

    # --- conditionals and free energies, on vectors v (N, D), h (N, hidden) and labels (N,) ---

    def as_vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.weight.dtype)  # (N, D)

    def hidden_logits(self, v: Tensor, labels: Tensor) -> Tensor:
        return F.linear(v, self.weight, self.hidden_bias) + self.label_weight.T[labels]  # (N, hidden)

    def class_hidden_logits(self, v: Tensor) -> Tensor:
        return F.linear(v, self.weight, self.hidden_bias)[:, None] + self.label_weight.T  # (N, K, hidden)

    def visible_logits(self, h: Tensor) -> Tensor:
        return torch.addmm(self.visible_bias, h, self.weight)  # (N, D)

    def label_logits(self, h: Tensor) -> Tensor:
        return torch.addmm(self.label_bias, h, self.label_weight)  # (N, K)

    def class_terms(self, class_hidden_logits: Tensor) -> Tensor:
        """log p(y | v) up to a constant of v, from (N, K, hidden): (N, K)."""
        return self.label_bias + softplus(class_hidden_logits).sum(2)

    def class_free_energies(self, v: Tensor) -> Tensor:
        """F(v, y) for every class, (N, K)."""
        return -(v @ self.visible_bias)[:, None] - self.class_terms(self.class_hidden_logits(v))

    def energy(self, x: Tensor) -> Tensor:
        """-log sum_y exp(-F(x, y)), (N,) nats: p(x) = exp(-energy) / Z, whatever the label."""
        return -(-self.class_free_energies(self.as_vectors(self.check_images(x)))).logsumexp(1)

    def class_log_prob(self, x: Tensor) -> Tensor:
        """log p(y | x) in nats for every class y, (N, K), exact."""
        logits = self.class_hidden_logits(self.as_vectors(self.check_images(x)))
        return self.class_terms(logits).log_softmax(1)

    # --- learning ---

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        update = HybridDivergence(self, config.learning_rate, self.steps, self.chains, self.discriminative_weight)
        yield Phase("hybrid contrastive divergence", update, config.epochs, update.finish)

    # --- Gibbs sampling ---

    @torch.no_grad()
    def gibbs_step(
        self, v: Tensor, labels: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """h ~ p(h | v, y), then v ~ p(v | h) and y ~ p(y | h), with all energies divided by `temperature`."""
        uniforms = self.uniforms(len(v), generator)
        h = bernoulli(self.hidden_logits(v, labels) / temperature, uniforms.hidden)
        drawn = choose(self.label_logits(h) / temperature, uniforms.label)
        return bernoulli(self.visible_logits(h) / temperature, uniforms.visible), drawn

    def uniforms(self, n: int, generator: torch.Generator | None) -> Uniforms:
        """One uniform per unit in one draw. A generator draws on its own device."""
        device = self.device if generator is None else generator.device
        units = (len(self.hidden_bias), self.dimensions, 1)
        uniforms = torch.rand(n, sum(units), generator=generator, dtype=self.weight.dtype, device=device)
        return Uniforms(*uniforms.to(self.device).split(units, dim=1))

    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every Gibbs step from x on, without end; labels start drawn given x."""
        v = self.as_vectors(self.check_images(x))
        labels = self._draw_labels(v, generator)
        while True:
            v, labels = self.gibbs_step(v, labels, temperature, generator)
            yield v.view(len(x), *self.data_shape)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n Gibbs chains of `sampling_steps` steps, binary (n, C, H, W); of classes `labels` (n,) if given.

        The chains start at noise with the training pixels' frequencies; given labels are held fixed.
        """
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield where the chains of `sample` start, then where they stand at up to 50 moments on the way."""
        noise = draw_uniforms(self, n, None, temperature, generator)
        held = None if labels is None else check_labels(labels, n, self.classes).to(self.device)
        v = bernoulli(self.base_visible_bias, self.as_vectors(noise))
        start = (v, self._draw_labels(v, generator) if held is None else held)

        def step(pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            v, drawn = self.gibbs_step(*pairs, temperature, generator)
            return v, drawn if held is None else held

        for v, _ in moments(step, start, self.sampling_steps):
            yield v.reshape(n, *self.data_shape)

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw the pixels where `known` is 0 by Gibbs chains that hold the others and the `labels` (N,) if given."""
        x, known = check_completion(self, x, known)
        given = None if labels is None else check_labels(labels, len(x), self.classes).to(self.device)
        if not len(x):
            return x
        fixed, held = self.as_vectors(x), self.as_vectors(known.expand_as(x)).bool()
        noise = draw_uniforms(self, len(x), None, temperature, generator)
        v = torch.where(held, fixed, bernoulli(self.base_visible_bias, self.as_vectors(noise)))
        labels = self._draw_labels(v, generator) if given is None else given
        for _ in range(self.sampling_steps):
            v, drawn = self.gibbs_step(v, labels, temperature, generator)
            v, labels = torch.where(held, fixed, v), drawn if given is None else given
        return v.view_as(x)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Gibbs chain only comes near its distribution."""
        return bool(known.all())

    @torch.no_grad()
    def _draw_labels(self, v: Tensor, generator: torch.Generator | None) -> Tensor:
        """y ~ p(y | v), (N,): where a chain's labels start."""
        return choose(-self.class_free_energies(v), self.uniforms(len(v), generator).label)

    # --- the normalising constant ---

    def tempered(self) -> TemperedLabelMachine:
        """The family from the machine that knows only the pixels' frequencies to this one."""
        return TemperedLabelMachine(self)

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas`, increasing from 0 to 1: log w (n,), float64."""
        return anneal(self.tempered(), n, betas, generator)

    def enumerable_units(self) -> int:
        """The size of the smaller layer: the other one and the label are summed in closed form."""
        return min(self.weight.shape)

    def exact_log_partition(self) -> Tensor:
        """log Z, a float64 scalar. ValueError above 30 units."""
        return log_partition_with_labels(self)

    @torch.no_grad()
    def surprise_map(self, x: Tensor) -> Tensor:
        """-log p(x_i | all other pixels) in nats, (N, 1, H, W), summed over channels: exact, whatever the label."""
        parts = self.as_vectors(self.check_images(x)).split(max(1, BLOCK // (self.weight.numel() * self.classes)))
        surprise = torch.cat([softplus(self._flip_gain(part)) for part in parts])
        return surprise.view_as(x).sum(1, keepdim=True)

    def _flip_gain(self, v: Tensor) -> Tensor:
        """energy(v) - energy(v with pixel i flipped), (N, D). A flip moves the hidden logits by (1 - 2 v_i) W_i."""
        sign, logits = 1 - 2 * v, self.class_hidden_logits(v)
        moved = logits[..., None] + sign[:, None, None, :] * self.weight  # (N, K, hidden, D)
        flipped = (softplus(moved).sum(2) + self.label_bias[:, None]).logsumexp(1)  # (N, D)
        return sign * self.visible_bias + flipped - self.class_terms(logits).logsumexp(1, keepdim=True)

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1 | x) = sum_y p(y | x) p(h = 1 | x, y), (N, hidden)."""
        logits = self.class_hidden_logits(self.as_vectors(self.check_images(x)))
        return (self.class_terms(logits).softmax(1)[:, :, None] * torch.sigmoid(logits)).sum(1)

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """[p(h = 1 | x)], (N, hidden)."""
        return [self.encode(x)]

    def reconstruct(self, x: Tensor) -> Tensor:
        """p(v = 1 | h) at h = p(h = 1 | x), (N, C, H, W)."""
        return torch.sigmoid(self.visible_logits(self.encode(x))).view_as(x)

    def filters(self) -> Tensor:
        """The incoming weights of each hidden unit, (hidden, C, H, W)."""
        return self.weight.detach().reshape(-1, *self.data_shape)
