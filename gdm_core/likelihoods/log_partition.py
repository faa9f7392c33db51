"""log Z of an energy model: by enumeration where it is small, else by annealed importance sampling.

Annealing gives weights w with E[w] = Z, so that log Z is estimated by the log of their mean. That estimate is on
average too *small* (Jensen), which makes log p(x) = -E(x) - log Z too good: read the interval and the effective sample
size, and trust neither where more temperatures change the value.

References: "Annealed Importance Sampling" (Neal, 2001); "On the Quantitative Analysis of Deep Belief Networks"
(Salakhutdinov and Murray, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gdm_core.annealing import Steps, annealing, check_schedule, outcome
from gdm_core.contract import Anneals, Enumerates, GenerativeModel, has

MOST_UNITS_BY_DEFAULT = 20  # 2^20 states: a second beside 64 pixels, ten beside 784
DEFAULT_TEMPERATURES = 1000
TRACE = 100  # moments of an annealing that are kept
COARSER = 4  # a schedule with so many times fewer temperatures, and half the chains, has to agree
FEWEST_EFFECTIVE = 5  # chains that count, below which the mean weight rests on luck


@dataclass(frozen=True)
class LogPartition:
    """log Z in nats with a 95 % interval; of zero width, with nothing else to say, where it is exact.

    `doubt` says in a sentence why the schedule is too short to trust, and is empty where nothing speaks against it: a
    narrow interval alone proves little, because chains that all miss the same modes agree.
    """

    value: float
    low: float
    high: float
    kind: str  # "exact" or "estimate"
    temperatures: int = 0
    chains: int = 0
    effective_sample_size: float = math.inf  # of the chains: (sum w)^2 / sum w^2
    log_weights: Tensor | None = None  # (chains,) float64
    trace: Tensor | None = None  # log weights on the way, (moments, chains) float64
    trace_betas: Tensor | None = None  # the inverse temperatures of those moments, (moments,)
    doubt: str = ""

    def __float__(self) -> float:
        return self.value


def log_partition(
    model: GenerativeModel,
    temperatures: int | str | Sequence[float] | Tensor | None = None,
    chains: int = 100,
    generator: torch.Generator | None = None,
    method: Literal["auto", "annealed", "exact"] = "auto",
) -> LogPartition:
    """log Z of a model with `anneal` (or `exact_log_partition`).

    temperatures: how many inverse temperatures between 0 and 1, both included (`annealing_schedule`), or the
        increasing sequence of them, or "standard" (`standard_schedule`); None leaves the choice open.
    method: "exact" enumerates, "annealed" anneals (1000 temperatures unless told), and "auto" enumerates where no
        temperatures are asked for and at most 2^20 states have to be summed, and anneals otherwise.

    Raises ValueError for a model that cannot, fewer than 2 temperatures or chains, and temperatures that do not
    increase from 0 to 1.
    """
    if method not in ("auto", "annealed", "exact"):
        raise ValueError(f"method must be auto, annealed or exact, got {method!r}")
    betas = inverse_temperatures(DEFAULT_TEMPERATURES if temperatures is None else temperatures)
    _check_chains(chains)
    if method == "exact" or (method == "auto" and temperatures is None and is_soon_enumerated(model)):
        return _enumerated(model)
    return outcome(annealing_log_partition(model, betas, chains, generator))


def annealing_log_partition(
    model: GenerativeModel, betas: Tensor, chains: int, generator: torch.Generator | None
) -> Steps[LogPartition]:
    """The annealed log Z with what speaks against it, a temperature at a time."""
    _check_chains(chains)
    if not has(model, Anneals):
        raise ValueError(f"{type(model).__name__} has no anneal(), so its log Z cannot be estimated by annealing")
    found = yield from _annealed(model, betas, chains, generator)
    coarse = torch.cat([betas[:-1:COARSER], betas[-1:]])
    other = yield from _annealed(model, coarse, max(2, chains // 2), generator)
    return replace(found, doubt=_doubt(found, other))


def is_soon_enumerated(model: GenerativeModel) -> bool:
    """Whether log Z is a sum over at most 2^20 states."""
    return has(model, Enumerates) and model.enumerable_units() <= MOST_UNITS_BY_DEFAULT


@torch.no_grad()
def _annealed(model: Anneals, betas: Tensor, chains: int, generator: torch.Generator | None) -> Steps[LogPartition]:
    every, trace, moments = max(1, (len(betas) - 1) // TRACE), [], []
    for step, (log_w, _) in enumerate(annealing(model.tempered(), chains, betas, generator), 1):
        if step % every == 0 or step == len(betas) - 1:
            trace.append(log_w.cpu().clone())
            moments.append(betas[step])
        yield chains
    found = from_log_weights(trace[-1], len(betas))
    return replace(found, trace=torch.stack(trace), trace_betas=torch.stack(moments))


def _doubt(found: LogPartition, coarse: LogPartition) -> str:
    """Why not to trust it: weights spread so far that their mean is luck, or a coarser schedule that disagrees.

    Of n log weights with variance s^2, were they normal, n exp(-s^2) would count: the sample's own effective size is
    kind to itself, because the large weights that are missing are missing there too.
    """
    spread = found.log_weights.std().item()
    expected = found.chains * math.exp(-(spread**2))
    advice = "anneal with more temperatures"
    if min(expected, found.effective_sample_size) < FEWEST_EFFECTIVE:
        return (
            f"The log weights of {found.chains} chains spread by {spread:.1f} nats, so that about {expected:.1g} of "
            f"them would decide: {advice}."
        )
    if coarse.low > found.high or coarse.high < found.low:
        return (
            f"A schedule of {coarse.temperatures} temperatures gives {coarse.value:.2f} "
            f"[{coarse.low:.2f}, {coarse.high:.2f}] instead, so the value still depends on the schedule: {advice}."
        )
    return ""


def standard_schedule() -> Tensor:
    """The 14,501 inverse temperatures of Salakhutdinov and Murray (2008): ever denser towards 1."""
    pieces = (torch.arange(500) * 100, torch.arange(5_000, 9_000) * 10, torch.arange(90_000, 100_001))
    return torch.cat(pieces).double() / 100_000


def annealing_schedule(temperatures: int) -> Tensor:
    """Inverse temperatures from 0 to 1, (temperatures,) float64, evenly spaced."""
    if temperatures < 2:
        raise ValueError(f"temperatures must be at least 2 (0 and 1), got {temperatures}")
    return torch.linspace(0, 1, int(temperatures), dtype=torch.float64)


def from_log_weights(log_weights: Tensor, temperatures: int) -> LogPartition:
    """The estimate log mean w and its interval from log weights (chains,).

    The interval is the log of mean w +- 1.96 standard errors. Its lower end is bounded from below by the interval of
    the mean log weight, which by Jensen's inequality is itself below log Z, and stays finite where a few weights
    outweigh all others. Raises ValueError where a weight is NaN or infinite.
    """
    log_w = log_weights.detach().to("cpu", torch.float64)
    if not torch.isfinite(log_w).all():
        raise ValueError("annealing gave weights that are NaN or infinite: are the model's parameters finite?")
    n, peak = len(log_w), log_w.max()
    w = (log_w - peak).exp()
    relative_error = 1.96 * (w.std() / w.mean() / math.sqrt(n)).item()
    value = (peak + w.mean().log()).item()
    linear_low = value + math.log1p(-relative_error) if relative_error < 1 else -math.inf
    jensen_low = (log_w.mean() - 1.96 * log_w.std() / math.sqrt(n)).item()
    return LogPartition(
        value=value,
        low=max(linear_low, jensen_low),
        high=value + math.log1p(relative_error),
        kind="estimate",
        temperatures=temperatures,
        chains=n,
        effective_sample_size=(w.sum().square() / w.square().sum()).item(),
        log_weights=log_w,
    )


def _enumerated(model: GenerativeModel) -> LogPartition:
    if not has(model, Enumerates):
        raise ValueError(f"{type(model).__name__} has no exact_log_partition(), so its log Z cannot be enumerated")
    value = model.exact_log_partition().item()
    if not math.isfinite(value):
        raise ValueError(f"enumeration gave a log Z that is {value}: are the model's parameters finite?")
    return LogPartition(value, value, value, "exact")


def _check_chains(chains: int) -> None:
    if chains < 2:
        raise ValueError(f"chains must be at least 2 for an interval, got {chains}")


def inverse_temperatures(temperatures: int | str | Sequence[float] | Tensor) -> Tensor:
    """The schedule that a number, "standard" or a sequence means, (K,) float64, or ValueError."""
    if isinstance(temperatures, str) and temperatures == "standard":
        return standard_schedule()
    if isinstance(temperatures, int):
        return annealing_schedule(temperatures)
    try:
        betas = torch.as_tensor(temperatures, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError):
        choices = "a number, 'standard' or an increasing sequence from 0 to 1"
        raise ValueError(f"temperatures must be {choices}, got {temperatures!r}") from None
    return check_schedule(betas, "temperatures")
