"""The distributions between a Boltzmann machine and one without connections: of all its units, or of the hidden ones.

    all units s = (h, v):    f_beta(s) = (1 - beta) b_0'v + beta (a's + s'Cs / 2),
                             log Z_0 = sum_i softplus(b_0i) + hidden log 2
    hidden units given v:    f_beta(h) = sum_j (a_j h_j - softplus(a_j)) + beta h'Jh / 2,    a = c + Wv,    log Z_0 = 0

with b_0 = `base_visible_bias`. A step is a Gibbs scan forwards and one backwards, which together are reversible. The
second gives the free energy of an image, F(v) = - b'v - v'Lv / 2 - sum_j softplus(a_j) - log Z_1, where it has too many
hidden units to be enumerated. Annealing: "Annealed Importance Sampling" (Neal, 2001).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gdm_core.annealing import anneal
from gdm_core.models.energy.partition.tempered_rbm import bernoulli, softplus
from gdm_core.models.energy.partition.unit_sums import draw_units, log_sums_of_units
from gdm_core.models.energy.sampling.gibbs_scan import Units, gibbs_scan, mean_field_scan
from gdm_core.randomness import seeded_generator

if TYPE_CHECKING:
    from gdm_core.models.energy.boltzmann_machine import BoltzmannMachine

MOST_ENUMERATED = 20  # connected hidden units; as many as log Z is enumerated for unasked
TEMPERATURES, CHAINS = 100, 20  # of the free energy of an image with more
MEAN_FIELD_SCANS = 10  # of the hidden units given an image


class Chains(NamedTuple):
    """States (n, U) and the two terms of every f_beta, (n,) float64: that of beta = 0, that which grows with beta."""

    s: Tensor
    base: Tensor
    coupled: Tensor


class TemperedBoltzmannMachine:
    """A `Tempered` family of all units of a machine, hidden ones first."""

    def __init__(self, machine: BoltzmannMachine) -> None:
        self.machine, self.units = machine, machine.units()
        self.base = torch.cat([torch.zeros_like(machine.hidden_bias), machine.base_visible_bias])

    def base_log_partition(self) -> Tensor:
        """log Z_0, a float64 scalar."""
        return softplus(self.machine.base_visible_bias.double()).sum() + len(self.machine.hidden_bias) * math.log(2)

    def base_sample(self, n: int, generator: torch.Generator | None) -> Chains:
        """Independent pixels at the training frequencies, and coins."""
        uniforms = self.machine.uniforms(n, generator)
        return self.at(bernoulli(self.base.expand_as(uniforms), uniforms))

    def at(self, s: Tensor) -> Chains:
        """Chains that stand at states (n, U)."""
        return Chains(s, (s @ self.base).double(), self.units.negative_energy(s).double())

    def log_density(self, state: Chains, beta: float) -> Tensor:
        """f_beta(s), (n,) float64."""
        return (1 - beta) * state.base + beta * state.coupled

    def step(self, state: Chains, beta: float, generator: torch.Generator | None) -> Chains:
        """Every unit given the others, forwards and then backwards."""
        warm = self.units.tempered(beta)
        warm = warm._replace(bias=warm.bias + (1 - beta) * self.base)
        s = gibbs_scan(warm, state.s, self.machine.uniforms(len(state.s), generator))
        return self.at(gibbs_scan(warm, s, self.machine.uniforms(len(s), generator), backwards=True))


class TemperedFromImages(TemperedBoltzmannMachine):
    """The same of a machine whose free energy is exact, which chains from images need."""

    def at_images(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Chains, Tensor]:
        """Chains at images (n, C, H, W) with hidden units h ~ p(h | x), and log p(h | x), (n,) float64."""
        v = self.machine.as_vectors(x)
        units, uniforms = self.machine.units_given(v), self.machine.uniforms(len(v), generator)
        if self.machine.hidden_pairs is not None:
            h, log_p = draw_units(units, uniforms[:, :1])
        else:
            h = bernoulli(units.bias, uniforms[:, : units.bias.shape[1]])
            log_p = (h * units.bias - softplus(units.bias)).sum(1, dtype=torch.float64).detach()
        return self.at(torch.cat([h, v], 1)), log_p


def family_of(machine: BoltzmannMachine) -> TemperedBoltzmannMachine:
    """The family of all units; from images where the sum over the hidden units is exact."""
    exact = machine.hidden_pairs is None or len(machine.hidden_bias) <= MOST_ENUMERATED
    return TemperedFromImages(machine) if exact else TemperedBoltzmannMachine(machine)


class TemperedPosterior:
    """A `Tempered` family of the hidden units of images, given by their biases a (N, hidden): `chains` for each image.

    All images get the same noise, so that what is drawn for one does not depend on the others.
    """

    def __init__(self, units: Units, chains: int) -> None:
        self.chains, self.images = chains, len(units.bias)
        self.bias = units.bias.repeat(chains, 1)  # (chains * N, hidden)
        self.units = units

    def base_log_partition(self) -> Tensor:
        """log Z_0 = 0: without connections the hidden units are normalised."""
        return self.bias.new_zeros((), dtype=torch.float64)

    def base_sample(self, n: int, generator: torch.Generator | None) -> Chains:
        """Independent hidden units, each by its own bias."""
        return self._at(bernoulli(self.bias, self._uniforms(generator)))

    def log_density(self, state: Chains, beta: float) -> Tensor:
        """f_beta(h), (n,) float64."""
        return state.base + beta * state.coupled

    def step(self, state: Chains, beta: float, generator: torch.Generator | None) -> Chains:
        """Every hidden unit given the others, forwards and then backwards."""
        warm = Units(beta * self.units.coupling, self.bias, self.units.blocks)
        h = gibbs_scan(warm, state.s, self._uniforms(generator))
        return self._at(gibbs_scan(warm, h, self._uniforms(generator), backwards=True))

    def _at(self, h: Tensor) -> Chains:
        base = (h * self.bias - softplus(self.bias)).sum(1, dtype=torch.float64)
        return Chains(h, base, (h @ self.units.coupling * h).sum(1, dtype=torch.float64) / 2)

    def _uniforms(self, generator: torch.Generator | None) -> Tensor:
        shape = (self.chains, 1, self.bias.shape[1])
        home = "cpu" if generator is None else generator.device
        uniforms = torch.rand(shape, generator=generator, dtype=self.bias.dtype, device=home).to(self.bias.device)
        return uniforms.expand(-1, self.images, -1).flatten(0, 1)


def log_sums_given_images(units: Units) -> Tensor:
    """log sum_h exp(a'h + h'Jh / 2) for each of N biases a (N, hidden): (N,). Exact up to 20 units, or without J.

    Beyond, an estimate whose exponential is right on average, so that it is on average too small itself; the same at
    every call. Its slope in a is that of the mean-field bound, the means of h: the estimate has none of its own.
    """
    independent = softplus(units.bias).sum(1)
    if not any(block.connected for block in units.blocks):
        return independent
    if units.bias.shape[1] <= MOST_ENUMERATED:
        return log_sums_of_units(units)
    betas = torch.linspace(0, 1, TEMPERATURES, dtype=torch.float64)
    family = TemperedPosterior(units, CHAINS)
    log_w = anneal(family, CHAINS * len(units.bias), betas, seeded_generator(0, "hidden units given an image"))
    estimate = independent + (log_w.view(CHAINS, -1).logsumexp(0) - math.log(CHAINS)).to(independent.dtype)
    return _with_slope(estimate, units) if units.bias.requires_grad else estimate


def _with_slope(estimate: Tensor, units: Units) -> Tensor:
    means = torch.sigmoid(units.bias.detach())
    for _ in range(MEAN_FIELD_SCANS):
        means = mean_field_scan(units, means)
    return estimate.detach() + ((units.bias - units.bias.detach()) * means).sum(1)  # nothing is added but a slope
