"""Images completed where units hang below directed layers: guesses of the hidden units, accepted by Metropolis's rule.

    pi(u, h_1, ..., h_{L-1})  proportional to  p(x, h_1, ..., h_{L-1}),      x = (known pixels, u)

is what p(u | known) is a part of. Every step leaves pi as it is:

    for each hidden layer l: of some units S, whichever a coin chooses, h'_S ~ q(h_l | h_{l-1}), the others as they are,
    accepted with probability min(1, [p(x, h') q(h_l | h_{l-1})] / [p(x, h) q(h'_l | h_{l-1})]),      then
    u ~ p(u | h_1)

The units that stay cancel in the ratio of the q. The coin's weight is drawn anew at every step, from all units at once
to few: many guesses at once move far, few are accepted more often. A long chain is near p(u | known); how long it must
be is not known, the longer the poorer the guesses, so that the completion is approximate. At a temperature all logits
and the top machine's energy are divided by it, as in `sample`.

"Monte Carlo Sampling Methods Using Markov Chains and Their Applications", Hastings, 1970; proposals by a recognition
net as in "Reweighted Wake-Sleep", Bornschein & Bengio, 2015, where they are weighed and not accepted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.layers.sampling_arguments import check_completion, draw_uniforms
from gdm_core.models.energy.partition.tempered_rbm import bernoulli, softplus

if TYPE_CHECKING:
    from gdm_core.models.energy.dbn import DeepBeliefNetwork

SHARES = (1.0, 0.3, 0.1, 0.03)  # of a layer's units that are guessed at once


@dataclass(frozen=True)
class GuessedLayers:
    """What completing needs of a net whose layers are [x, h_1, ...], vectors (N, units)."""

    units: Sequence[int]  # of the layers that are guessed
    start: Callable[[Tensor], Tensor]  # pixels where nothing is known, of uniforms (N, D)
    guess_logits: Callable[[int, Tensor], Tensor]  # of q(h_{l+1} | h_l), given l and h_l
    pixel_logits: Callable[[Tensor], Tensor]  # of p(x | h_1)
    log_joint: Callable[..., Tensor]  # log p(x, h) up to a constant, (N,), of layers and a temperature (1)


@torch.no_grad()
def complete_by_guesses(
    model: GenerativeModel, net: GuessedLayers, steps: int, x: Tensor, known: Tensor, temperature: float,
    generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """The ends (N, C, H, W) of chains of so many steps that hold the pixels of x where `known` is 1.

    ValueError for bad images, masks and temperatures.
    """
    x, known = check_completion(model, x, known)
    if not len(x):
        return x
    noise = draw_uniforms(model, len(x), None, temperature, generator).flatten(1)
    fixed, held = x.flatten(1).to(noise.dtype), known.expand_as(x).flatten(1)
    layers = [torch.where(held, fixed, net.start(noise))]
    for layer, units in enumerate(net.units):
        logits = net.guess_logits(layer, layers[-1])
        layers.append(bernoulli(logits, draw_for(noise, units, generator)))
    for _ in range(steps):
        for layer in range(1, len(layers)):
            layers = _guess_again(net, layers, layer, temperature, generator)
        drawn = bernoulli(net.pixel_logits(layers[1]) / temperature, draw_for(noise, noise.shape[1], generator))
        layers[0] = torch.where(held, fixed, drawn)
    return layers[0].view_as(x)


def _guess_again(
    net: GuessedLayers, layers: list[Tensor], layer: int, temperature: float, generator: torch.Generator | None
) -> list[Tensor]:
    """One Metropolis-Hastings step of the units of one layer, of each image by itself."""
    before, n = layers[layer], len(layers[0])
    noise, coins, lots = draw_for(before, 2 * before.shape[1] + 2, generator).split([before.shape[1]] * 2 + [2], 1)
    share = torch.tensor(SHARES, dtype=before.dtype, device=before.device)[(lots[:, :1] * len(SHARES)).long()]
    logits = net.guess_logits(layer - 1, layers[layer - 1])
    guess = torch.where(coins < share, bernoulli(logits, noise), before)
    proposed = [*layers[:layer], guess, *layers[layer + 1 :]]
    gain = net.log_joint(proposed, temperature) - net.log_joint(layers, temperature)
    gain = gain - ((guess - before) * logits).sum(1)  # log q(h') - log q(h): the normalisers cancel
    accepted = lots[:, 1].log() < gain
    layers[layer] = torch.where(accepted.view(n, 1), guess, before)
    return layers


def below_a_machine(model: DeepBeliefNetwork) -> GuessedLayers:
    """The layers of a belief network whose top is a restricted machine, which is summed over."""
    first = model.machines[0]
    return GuessedLayers(
        model.guessed_units, partial(bernoulli, first.base_visible_bias), model.recognition_logits,
        first.visible_logits, partial(log_joint, model),
    )  # fmt: skip


def log_joint(model: DeepBeliefNetwork, layers: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """log p(x, h_1, ..., h_{L-1}) + log Z at a temperature, (N,)."""
    *directed, top = model.machines
    total = (layers[-1] @ top.visible_bias) / temperature
    total = total + softplus(top.hidden_logits(layers[-1]) / temperature).sum(1)
    for machine, (below, above) in zip(directed, itertools.pairwise(layers), strict=True):
        logits = machine.visible_logits(above) / temperature
        total = total + log_bernoulli(logits, below)
    return total


def log_bernoulli(logits: Tensor, values: Tensor) -> Tensor:
    """log p of 0s and 1s, summed over the last axis."""
    return (values * logits - softplus(logits)).sum(-1)


def draw_for(like: Tensor, units: int, generator: torch.Generator | None) -> Tensor:
    """Uniforms (N, units), where and of the kind `like` (N, ...) is. A generator draws on its own device."""
    home = like.device if generator is None else generator.device
    return torch.rand(len(like), units, generator=generator, dtype=like.dtype, device=home).to(like.device)
