"""Annealed importance sampling along a family of tempered distributions: forwards, backwards, and from an image back.

    p_beta(s) = exp(f_beta(s)) / Z_beta,    0 = beta_0 < ... < beta_K = 1;    Z_0 is known, Z_1 is wanted.

Forwards, s_0 ~ p_0 and s_k ~ T_k(. | s_{k-1}), T_k leaving p_{beta_k} as it is, with

    w = Z_0 prod_{k=1..K} exp(f_{beta_k}(s_{k-1}) - f_{beta_{k-1}}(s_{k-1})),    E[w] = Z_1

so that log mean w is on average too small. Backwards from exact draws of p_1 the same product has E[1 / w] = 1 / Z_1,
and -log mean 1/w is on average too large. From an image x backwards, w is an unbiased estimate of the probability of x
where the forward chains end, which needs no Z at all: log mean w is on average too small.

References: "Annealed Importance Sampling" (Neal, 2001); "Sandwiching the marginal likelihood using bidirectional Monte
Carlo" (Grosse, Ghahramani and Adams, 2015); "Accurate and conservative estimates of MRF log-likelihood using reverse
annealing" (Burda, Grosse and Salakhutdinov, 2015).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

MOST_STATES = 16  # binary units up to which all states are written down, so that draws are exact

State = TypeVar("State")  # of n chains at once, whatever it is made of
Result = TypeVar("Result")
Steps = Generator[int, None, Result]  # yields how many chains have just taken a step, and returns what it found


class Tempered(Protocol[State]):
    """The family p_beta of a model. All randomness comes from the generator."""

    def base_log_partition(self) -> Tensor:
        """log Z_0, a float64 scalar."""
        ...

    def base_sample(self, n: int, generator: torch.Generator | None) -> State:
        """n exact draws from p_0."""
        ...

    def log_density(self, state: State, beta: float) -> Tensor:
        """f_beta(s), (n,) float64."""
        ...

    def step(self, state: State, beta: float, generator: torch.Generator | None) -> State:
        """One step of a Markov chain that is reversible with respect to p_beta, hence leaves it as it is."""
        ...


@runtime_checkable
class TemperedImages(Tempered[State], Protocol[State]):
    """A family whose chains can start at given images, with h ~ q(h | x) drawn to them where a state is more than x.

    The mean of exp(log w - log q(h | x)) is the probability of x where forward chains end, whatever q is. Where it is
    p_1(h | x), chains from exact draws of x stand at exact draws; a family that has another q is `DrawsStates`.
    """

    def at_images(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Chains that stand at images (n, C, H, W), and log q(h | x) of what was drawn, (n,) float64; or 0.

        Where a state does not contain x: less log p(x | state).
        """
        ...


@runtime_checkable
class DrawsStates(TemperedImages[State], Protocol[State]):
    """A family that draws from p_1 by itself."""

    def draws(self, n: int, generator: torch.Generator | None) -> tuple[Iterator[State], bool]:
        """n chains on their way to draws, which the last state is, and whether these are exact."""
        ...


def check_schedule(betas: Tensor, name: str = "betas") -> Tensor:
    """Return inverse temperatures, or raise ValueError where they do not increase from 0 to 1."""
    if betas.dim() != 1 or len(betas) < 2:
        raise ValueError(f"{name} must be a sequence of at least 2, got shape {tuple(betas.shape)}")
    if betas[0] != 0 or betas[-1] != 1 or not (betas.diff() > 0).all():
        raise ValueError(f"{name} must increase from 0 to 1 (they are inverse temperatures: 0 is hot)")
    return betas


def annealing(
    family: Tempered[State], n: int, betas: Tensor, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, State]]:
    """Yield log w (n,), float64, and the chains after every temperature from the second on; w is changed in place."""
    temperatures = check_schedule(betas).tolist()
    state = family.base_sample(n, generator)
    log_w = family.base_log_partition().repeat(n)
    for warmer, colder in itertools.pairwise(temperatures):
        log_w += family.log_density(state, colder) - family.log_density(state, warmer)
        state = family.step(state, colder, generator)
        yield log_w, state


@torch.no_grad()
def anneal(family: Tempered[State], n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The log weights of n chains, (n,) float64, with E[exp log w] = Z_1."""
    return annealed(family, n, betas, generator)[0]


@torch.no_grad()
def annealed(
    family: Tempered[State], n: int, betas: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, State]:
    """The log weights of n chains and where these end: the mean of w g(end) over that of w is that of g under p_1."""
    return deque(annealing(family, n, betas, generator), maxlen=1)[0]


def outcome(steps: Generator[object, None, Result]) -> Result:
    """What work found that nobody watches."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def anneal_backwards(
    family: Tempered[State], state: State, betas: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """log w (n,), float64, of chains that start at draws from p_1 and heat up: E[exp -log w] = 1 / Z_1.

    That holds for exact draws only; ends of long chains give a number that bounds nothing.
    """
    return outcome(annealing_backwards(family, state, betas, generator))


@torch.no_grad()
def annealing_backwards(
    family: Tempered[State], state: State, betas: Tensor, generator: torch.Generator | None
) -> Steps[Tensor]:
    """`anneal_backwards`, a temperature at a time."""
    log_w = family.base_log_partition().clone()
    for colder, warmer in itertools.pairwise(check_schedule(betas).flip(0).tolist()):
        state = family.step(state, colder, generator)
        log_w = log_w + family.log_density(state, colder) - family.log_density(state, warmer)
        yield len(log_w)
    return log_w


def annealed_log_prob(
    family: Tempered[State], state: State, betas: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """log w (n,), float64: E[exp log w] is the probability of `state` where forward chains end (after a step at 1).

    Steps are taken back in time, which a reversible chain does by stepping forwards:

        w = exp(f_0(s_0)) / Z_0 prod_{k=K..1} exp(f_{beta_k}(s_k) - f_{beta_k}(s_{k-1})),    s_{k-1} ~ T_k(. | s_k)
    """
    return outcome(annealing_log_prob(family, state, betas, generator))


@torch.no_grad()
def annealing_log_prob(
    family: Tempered[State], state: State, betas: Tensor, generator: torch.Generator | None
) -> Steps[Tensor]:
    """`annealed_log_prob`, a temperature at a time."""
    log_w = -family.base_log_partition()
    for beta in check_schedule(betas)[1:].flip(0).tolist():
        before, state = family.log_density(state, beta), family.step(state, beta, generator)
        log_w = log_w + before - family.log_density(state, beta)
        yield len(log_w)
    return log_w + family.log_density(state, 0.0)
