"""A Boltzmann machine in which any two units may be connected: pixels v among themselves, hidden units h, and both.

    E(v, h) = - b'v - c'h - h'Wv - v'Lv / 2 - h'Jh / 2,     p(v, h) = exp(-E(v, h)) / Z,
    p(v_i = 1 | all others) = sigmoid(b_i + (W'h + Lv)_i),  p(h_j = 1 | all others) = sigmoid(c_j + (Wv + Jh)_j)

L and J are symmetric with a zero diagonal, because one free number stands for each pair. Without both it is a
restricted machine (`rbm`), whose layers are drawn at once; with them units are drawn one after another. The free energy
and log Z are sums over the hidden units and over all units: enumerated where these are few, annealed beyond.

Papers: "A Learning Algorithm for Boltzmann Machines", Ackley, Hinton & Sejnowski, 1985; "Deep Boltzmann Machines",
Salakhutdinov & Hinton, 2009, for mean field and persistent chains. Changed: as in boltzmann_learning.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.annealing import anneal
from gdm_core.contract import GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.sampling_arguments import check_completion, draw_uniforms
from gdm_core.models.energy.learning.boltzmann_learning import PersistentLearning
from gdm_core.models.energy.partition.tempered_boltzmann_machine import (
    MEAN_FIELD_SCANS,
    TemperedBoltzmannMachine,
    family_of,
    log_sums_given_images,
)
from gdm_core.models.energy.partition.tempered_rbm import bernoulli, softplus
from gdm_core.models.energy.partition.unit_sums import layers_to_sum, log_sum_of_units
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.gibbs_scan import Units, blocks_of, gibbs_scan, mean_field_scan
from gdm_core.models.energy.unit_pairs import symmetric, unconnected_pairs
from gdm_core.registry import register


@register("boltzmann_machine", family="energy", paper="Ackley, Hinton and Sejnowski, 1985")
class BoltzmannMachine(GenerativeModel):
    """`visible_connections` and `hidden_connections` say whether there are L and J; `positive_phase` how the hidden
    units of an image are found while learning; `steps`, `chains` and `sampling_steps` count scans and chains as in
    `rbm`. With up to 20 hidden units, or without J, the energy is exact; with more it is an estimate by annealing."""

    default_training = TrainingConfig(epochs=40, batch_size=32, learning_rate=0.4)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: int = 12,
        visible_connections: bool = True,
        hidden_connections: bool = True,
        positive_phase: Literal["mean_field", "gibbs"] = "mean_field",
        steps: int = 1,
        chains: int = 100,
        sampling_steps: int = 300,
    ) -> None:
        super().__init__(data_shape)
        counts = {"hidden_units": hidden_units, "steps": steps, "chains": chains, "sampling_steps": sampling_steps}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.positive_phase, self.sampling_steps = positive_phase, sampling_steps
        self.steps, self.chains = steps, chains
        self.weight = nn.Parameter(0.01 * torch.randn(hidden_units, self.dimensions))
        self.visible_bias = nn.Parameter(torch.zeros(self.dimensions))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.visible_pairs = unconnected_pairs(self.dimensions) if visible_connections else None
        self.hidden_pairs = unconnected_pairs(hidden_units) if hidden_connections else None
        self.register_buffer("base_visible_bias", torch.zeros(self.dimensions))  # where annealing and sampling start
        self.blocks = blocks_of((hidden_units, hidden_connections), (self.dimensions, visible_connections))

    # --- the machine as one set of units, hidden ones first ---

    def visible_coupling(self) -> Tensor:
        """L, (D, D)."""
        return symmetric(self.visible_pairs, self.dimensions, self.weight)

    def hidden_coupling(self) -> Tensor:
        """J, (hidden, hidden)."""
        return symmetric(self.hidden_pairs, len(self.hidden_bias), self.weight)

    def units(self) -> Units:
        """All units: s = (h, v)."""
        hidden = torch.cat([self.hidden_coupling(), self.weight], 1)
        visible = torch.cat([self.weight.T, self.visible_coupling()], 1)
        bias = torch.cat([self.hidden_bias, self.visible_bias])
        return Units(torch.cat([hidden, visible]).detach(), bias.detach(), self.blocks)

    def units_given(self, v: Tensor) -> Units:
        """The hidden units given vectors (N, D): each image gives them another bias."""
        hidden = len(self.hidden_bias)
        blocks = blocks_of((hidden, self.hidden_pairs is not None))
        return Units(self.hidden_coupling(), F.linear(v, self.weight, self.hidden_bias), blocks)

    def as_vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.weight.dtype)  # (N, D)

    # --- energies ---

    def energy(self, x: Tensor) -> Tensor:
        """The free energy F(x) = -log sum_h exp(-E(x, h)), (N,) nats.

        With more than 20 hidden units and J an estimate by annealed importance sampling: the same at every call,
        whatever the other images, and on average too large.
        """
        v = self.as_vectors(self.check_images(x))
        visible = ((self.visible_bias + v @ self.visible_coupling() / 2) * v).sum(1)
        return -visible - log_sums_given_images(self.units_given(v))

    def hidden_means(self, v: Tensor) -> Tensor:
        """The mean-field means of the hidden units given vectors (N, D), (N, hidden): p(h = 1 | v) without J."""
        units = self.units_given(v)
        means = torch.sigmoid(units.bias)
        for _ in range(MEAN_FIELD_SCANS if self.hidden_pairs is not None else 0):
            means = mean_field_scan(units, means)
        return means

    def visible_logits(self, v: Tensor, h: Tensor) -> Tensor:
        """The log-odds of each pixel given all others and hidden units (N, hidden), (N, D)."""
        return self.visible_bias + h @ self.weight + v @ self.visible_coupling()

    # --- learning ---

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        update = PersistentLearning(self, config.learning_rate, self.steps, self.chains)
        yield Phase("persistent chains", update, config.epochs)

    # --- Gibbs sampling, on states (n, hidden + D) ---

    def uniforms(self, n: int, generator: torch.Generator | None) -> Tensor:
        """One uniform per unit, (n, hidden + D). A generator draws on its own device."""
        device = self.device if generator is None else generator.device
        shape = (n, sum(self.weight.shape))
        return torch.rand(shape, generator=generator, dtype=self.weight.dtype, device=device).to(self.device)

    def _state(self, v: Tensor) -> Tensor:
        """States of vectors (n, D) whose hidden units are still off: the next scan draws these first."""
        return torch.cat([v.new_zeros(len(v), len(self.hidden_bias)), v], 1)

    def _images(self, s: Tensor) -> Tensor:
        return s[:, len(self.hidden_bias) :].reshape(-1, *self.data_shape)

    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every scan from x on, without end."""
        s, units = self._state(self.as_vectors(self.check_images(x))), self.units().tempered(1 / temperature)
        while True:
            s = gibbs_scan(units, s, self.uniforms(len(s), generator))
            yield self._images(s)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n chains of `sampling_steps` scans, binary (n, C, H, W). Raises ValueError for labels.

        The chains start at noise with the training pixels' frequencies.
        """
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield where the chains of `sample` start, then where they stand at up to 50 moments on the way."""
        noise = draw_uniforms(self, n, labels, temperature, generator)
        start = self._state(bernoulli(self.base_visible_bias, self.as_vectors(noise)))
        units = self.units().tempered(1 / temperature)
        for s in moments(lambda s: gibbs_scan(units, s, self.uniforms(n, generator)), start, self.sampling_steps):
            yield self._images(s)

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, by chains whose known pixels are held fixed."""
        x, known = check_completion(self, x, known)
        if not len(x):
            return x
        fixed, held = self._state(self.as_vectors(x)), self._state(self.as_vectors(known.expand_as(x))).bool()
        noise = self._state(self.as_vectors(draw_uniforms(self, len(x), None, temperature, generator)))
        base = torch.cat([torch.full_like(self.hidden_bias, -torch.inf), self.base_visible_bias])
        s, units = torch.where(held, fixed, bernoulli(base, noise)), self.units().tempered(1 / temperature)
        for _ in range(self.sampling_steps):
            s = gibbs_scan(units, s, torch.where(held, 1 - fixed, self.uniforms(len(x), generator)))
        return self._images(s)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Gibbs chain only comes near its distribution."""
        return bool(known.all())

    # --- the normalising constant ---

    def tempered(self) -> TemperedBoltzmannMachine:
        """The family from the machine that knows only the pixels' frequencies to this one."""
        return family_of(self)

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas`, increasing from 0 to 1: log w (n,), float64."""
        return anneal(self.tempered(), n, betas, generator)

    def enumerable_units(self) -> int:
        """How many units are summed one by one: all but a layer without connections, the larger where both are."""
        one_by_one, _ = layers_to_sum(self.units(), len(self.hidden_bias))
        return one_by_one.stop - one_by_one.start

    def exact_log_partition(self) -> Tensor:
        """log Z, a float64 scalar. ValueError where more than 30 units are to be summed one by one."""
        units = self.units()
        return log_sum_of_units(units, *layers_to_sum(units, len(self.hidden_bias)))

    # --- views of the image ---

    @torch.no_grad()
    def surprise_map(self, x: Tensor) -> Tensor:
        """-log p(x_i | all other pixels) in nats, (N, 1, H, W), summed over channels: softplus(F(x) - F(x, i flipped)).

        As exact as the energy.
        """
        v = self.as_vectors(self.check_images(x))
        return torch.stack([softplus(self._flip_gain(row)) for row in v]).view_as(x).sum(1, keepdim=True)

    def _flip_gain(self, v: Tensor) -> Tensor:
        """F(v) - F(v with pixel i flipped) for every pixel of one image (D,), (D,)."""
        sign, units = 1 - 2 * v, self.units_given(v[None])
        flipped = units._replace(bias=units.bias + sign[:, None] * self.weight.T)  # (D, hidden)
        hidden = log_sums_given_images(flipped) - log_sums_given_images(units)
        return sign * (self.visible_bias + self.visible_coupling() @ v) + hidden

    def encode(self, x: Tensor) -> Tensor:
        """The mean-field means of the hidden units given x, (N, hidden)."""
        return self.hidden_means(self.as_vectors(self.check_images(x)))

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """[`encode`], (N, hidden)."""
        return [self.encode(x)]

    def reconstruct(self, x: Tensor) -> Tensor:
        """Each pixel's probability given its neighbours in x and the hidden units' means, (N, C, H, W)."""
        v = self.as_vectors(self.check_images(x))
        return torch.sigmoid(self.visible_logits(v, self.hidden_means(v))).view_as(x)

    def filters(self) -> Tensor:
        """The incoming weights of each hidden unit, (hidden, C, H, W)."""
        return self.weight.detach().reshape(-1, *self.data_shape)
