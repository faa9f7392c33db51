"""The tempered family of a machine of several layers, whose chains start at images by guessing hidden layers.

Chains run over the visible units s of one restricted machine: the top one of a belief network, whose h_{L-1} hangs
above directed layers, or a Boltzmann machine folded to one, whose even hidden layers stand beside the pixels. An image
alone is no such state. With guesses h ~ q(h | x) that contain the rest of it

    p(x) = E_q[p(s) p(x, h | s) / q(h | x)],      p(x, h | s) = 1 where nothing is directed,

so that with an unbiased estimate of the probability of s where the forward chains end, weighed like this, the mean over
guesses is still one of the probability of x there: a log of it is on average too small, the more so the poorer q is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdm_core.annealing import MOST_STATES
from gdm_core.models.energy.partition.enumeration import states_of
from gdm_core.models.energy.partition.tempered_rbm import Chains, TemperedMachine, bernoulli
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.guessed_completion import draw_for, log_bernoulli

if TYPE_CHECKING:
    from gdm_core.models.energy.dbm import DeepBoltzmannMachine
    from gdm_core.models.energy.dbn import DeepBeliefNetwork
    from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine

SURE = 1e-12  # a mean is kept so far from 0 and 1: what is guessed must be possible

Guess = Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


class TemperedLayers(TemperedMachine):
    """Of a restricted machine; `guess` makes states (n, units) of images and says log q(h | x) - log p(x, h | s)."""

    def __init__(self, machine: RestrictedBoltzmannMachine, guess: Guess, sampling_steps: int) -> None:
        super().__init__(machine)
        self.guess, self.sampling_steps = guess, sampling_steps

    def at_images(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Chains, Tensor]:
        """Chains that stand at guesses for images (n, C, H, W), and log q(h | x) - log p(x, h | s), (n,) float64."""
        states, log_guessed = self.guess(x, generator)
        return self.at(states), log_guessed

    def draws(self, n: int, generator: torch.Generator | None) -> tuple[Iterator[Chains], bool]:
        """n chains on their way to draws from the machine, the last the draws, and whether these are exact."""
        if self.machine.dimensions <= MOST_STATES:
            return iter([self._from_table(n, generator)]), True
        start = self.base_sample(n, generator).v
        steps = moments(lambda v: self.machine.gibbs_step(v, 1.0, generator), start, self.sampling_steps)
        return map(self.at, steps), False

    def _from_table(self, n: int, generator: torch.Generator | None) -> Chains:
        units = self.machine.dimensions
        states = states_of(torch.arange(2**units, device=self.base.device), units).to(self.base)
        log_p = self.log_density(self.at(states), 1.0)
        rows = torch.multinomial(log_p.softmax(0).cpu(), n, replacement=True, generator=generator)
        return self.at(states[rows.to(states.device)])


@torch.no_grad()
def guess_by_recognition(
    model: DeepBeliefNetwork, x: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """h_{L-1} (n, units) of h ~ q(h | x), and log q(h | x) - log p(x, h_1, ..., h_{L-2} | h_{L-1}), (n,) float64."""
    v = model.as_vectors(x)
    layers = model.recognise(v, draw_for(v, sum(model.guessed_units), generator))
    log_q, log_p = model.recognition_log_probs(layers), model.generative_log_probs(layers)
    return layers[-1], sum(part.double() for part in log_q) - sum(part.double() for part in log_p)


@torch.no_grad()
def guess_by_mean_field(
    model: DeepBoltzmannMachine, x: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Pixels and even hidden layers (n, units) ~ the mean-field posterior, and its log q of these, (n,) float64."""
    v = model.as_vectors(x)
    logits = torch.cat(model.mean_field(v)[2::2], 1).double().logit(eps=SURE)  # (n, even hidden units)
    drawn = bernoulli(logits, draw_for(logits, logits.shape[1], generator))  # float32 would never draw what is unlikely
    return torch.cat([v, drawn.to(v.dtype)], 1), log_bernoulli(logits, drawn)
