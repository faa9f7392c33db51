"""How far annealing can be trusted on a model: log Z from below and from above, log p of images from either side.

- forwards: log Z is on average too small, log p(x) = -E(x) - log Z too good (optimistic). Where a model of several
  layers has only a bound on -E(x), the bound less log Z may lie on either side.
- backwards, from draws of the model heated up: log Z is on average too large, if the draws are exact. Ends of long
  chains are not, and then the number bounds nothing; far from the forward one it says that the chains do not mix.
- from each image back (RAISE): a lower bound on the log-probability of the image where the forward chains end, which is
  the model itself as far as annealing works: conservative, and no log Z enters.

References: "Sandwiching the marginal likelihood using bidirectional Monte Carlo" (Grosse, Ghahramani and Adams, 2015);
"Accurate and conservative estimates of MRF log-likelihood using reverse annealing" (Burda, Grosse and Salakhutdinov,
2015).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gdm_core.annealing import (
    MOST_STATES,
    DrawsStates,
    State,
    Steps,
    TemperedImages,
    annealing_backwards,
    annealing_log_prob,
    outcome,
)
from gdm_core.contract import Anneals, Energy, GenerativeModel, Samples, SamplesStepwise, has
from gdm_core.energies import energy_or_bound, has_energy
from gdm_core.likelihoods.log_partition import (
    LogPartition,
    annealing_log_partition,
    from_log_weights,
    inverse_temperatures,
    is_soon_enumerated,
    log_partition,
)  # fmt: skip
from gdm_core.randomness import seeded_generator


@dataclass(frozen=True)
class AnnealingReport:
    """log Z both ways and log p(x) of images (N,) both ways, in nats; `exact` where log Z can be enumerated."""

    forwards: LogPartition
    backwards: LogPartition  # its interval is that of chance alone
    backwards_is_bound: bool
    optimistic: Tensor  # -E(x) - log Z forwards; of a bound on -E(x), hence not optimistic for sure, where `of_bound`
    conservative: Tensor  # a lower bound of log p(x) where the chains end
    exact: LogPartition | None
    of_bound: bool = False  # the model has no energy of an image but a bound

    @property
    def gap(self) -> float:
        """Mean of the optimistic values less that of the conservative ones: how unsure the log-likelihood is.

        Of a bound it only says how far the two lie apart: both may be too small.
        """
        return (self.optimistic.mean() - self.conservative.mean()).item()


def annealing_report(
    model: GenerativeModel,
    images: Tensor,
    temperatures: int | str | Sequence[float] | Tensor = 2000,
    chains: int = 100,
    chains_per_image: int = 10,
    seed: int = 0,
) -> AnnealingReport:
    """Anneal a model forwards, backwards and from images (N, C, H, W); the seed fixes all randomness.

    Raises ValueError for a model whose annealed chains cannot start at images, and for bad temperatures.
    """
    return outcome(annealing_report_steps(model, images, temperatures, chains, chains_per_image, seed))


def why_not_over_images(model: GenerativeModel) -> str:
    """Why there is no report, in a sentence that says what there is instead; empty where there is one.

    A report needs annealed chains that can start at images, and the images' energies or a bound on them.
    """
    name = type(model).__name__
    if not has(model, Anneals):
        return f"{name} does not anneal over images, so there is nothing to compare."
    if has_energy(model) and isinstance(model.tempered(), TemperedImages):
        return ""
    return (
        f"{name} does not anneal over images: it has so many connected hidden units that the energy of an image is "
        "itself an estimate by annealing. That leaves log Z forwards, with its interval and what speaks "
        "against it: `python -m pipelines evaluate NAME --temperatures 10000`, and a number that stays as it is with "
        "more temperatures; where few units have to be summed, `evaluate` without temperatures enumerates log Z."
    )


def annealing_report_steps(
    model: GenerativeModel,
    images: Tensor,
    temperatures: int | str | Sequence[float] | Tensor = 2000,
    chains: int = 100,
    chains_per_image: int = 10,
    seed: int = 0,
) -> Generator[float, None, AnnealingReport]:
    """`annealing_report`, yielding the share of the work that is done after every temperature."""
    if refusal := why_not_over_images(model):
        raise ValueError(refusal)
    betas = inverse_temperatures(temperatures)
    steps, done = _steps(model, model.check_images(images), betas, chains, chains_per_image, seed), 0
    whole = (len(betas) - 1) * (2.125 * chains + len(images) * chains_per_image)  # the eighth: the coarser schedule
    while True:
        try:
            done += next(steps)
        except StopIteration as end:
            return end.value
        yield min(1.0, done / whole)


@torch.no_grad()
def _steps(
    model: GenerativeModel, images: Tensor, betas: Tensor, chains: int, chains_per_image: int, seed: int
) -> Steps[AnnealingReport]:
    family = model.tempered()
    forwards = yield from annealing_log_partition(model, betas, chains, seeded_generator(seed, "log partition"))
    generator = seeded_generator(seed, "backwards")
    start, exact = yield from _draws(model, family, chains, seed, generator)
    upwards = yield from annealing_backwards(family, start, betas, generator)
    generator = seeded_generator(seed, "from images")
    start, log_drawn = family.at_images(images.repeat_interleave(chains_per_image, 0), generator)
    log_w = (yield from annealing_log_prob(family, start, betas, generator)) - log_drawn
    conservative = log_w.view(len(images), chains_per_image).logsumexp(1) - math.log(chains_per_image)
    optimistic = -energy_or_bound(model, images).double() - forwards.value
    return AnnealingReport(
        forwards, _upside_down(from_log_weights(-upwards, len(betas))), exact, optimistic.cpu(), conservative.cpu(),
        log_partition(model, method="exact") if is_soon_enumerated(model) else None,
        of_bound=not has(model, Energy),
    )  # fmt: skip


def _draws(
    model: GenerativeModel, family: TemperedImages[State], n: int, seed: int, hidden: torch.Generator
) -> Steps[tuple[State, bool]]:
    """n states drawn from the model, and whether they are exact; `hidden` draws what images do not contain."""
    generator = seeded_generator(seed, "draws")
    if not isinstance(family, DrawsStates):
        images, exact = yield from _images(model, n, generator)
        return family.at_images(images, hidden)[0], exact
    states, exact = family.draws(n, generator)
    state = next(states)
    for later in states:
        state = later
        yield 0
    return state, exact


def _images(model: GenerativeModel, n: int, generator: torch.Generator) -> Steps[tuple[Tensor, bool]]:
    """n draws of the model and whether they are exact: from a table of all images, else the ends of its chains."""
    if model.pixels == "binary" and model.dimensions <= MOST_STATES:
        states = torch.arange(2**model.dimensions)[:, None] >> torch.arange(model.dimensions) & 1
        images = states.view(-1, *model.data_shape).to(next(model.parameters()))
        rows = torch.multinomial((-model.energy(images)).softmax(0).cpu(), n, replacement=True, generator=generator)
        return images[rows.to(images.device)], True
    if not has(model, Samples):
        raise ValueError(f"{type(model).__name__} cannot sample, so annealing backwards has nowhere to start")
    if not has(model, SamplesStepwise):
        return model.sample(n, generator=generator), False
    steps = model.sample_steps(n, generator=generator)
    images = next(steps)
    for step in steps:
        images = step
        yield 0
    return images, False


def _upside_down(found: LogPartition) -> LogPartition:
    """log Z and its interval from those of log 1/Z."""
    return LogPartition(
        -found.value, -found.high, -found.low, "estimate", found.temperatures, found.chains,
        found.effective_sample_size, -found.log_weights,
    )  # fmt: skip
