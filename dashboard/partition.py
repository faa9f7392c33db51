"""How sure a model's log Z is: annealing from all sides as a background job, and its numbers in words. No web."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from dashboard.jobs import Job
from gdm_core.contract import GenerativeModel
from gdm_core.likelihoods import AnnealingReport, LogPartition, annealing_report_steps

IMAGES = 100  # validation images whose log-likelihood is bracketed, as many as on the command line
OPTIMISTIC = "too good on average", "log Z is on average too small, so that log p(x) is on average too good."
EITHER = "no bound", "a lower bound less a log Z that is on average too small may lie on either side."
BOUND = "too small on average", "from exact draws log Z is on average too large, so that log p(x) is too small."
NO_BOUND = "no bound", "ends of long chains bound nothing; far from the forward value they say that chains do not mix."
CONSERVATIVE = "conservative", "on average log p(x) is too small for where the forward chains end; no log Z enters."
EXACT = "exact", "all states are summed: what the others should come near."
EXACT_BOUND = "lower bound", "log Z is exact, all states are summed; log p(x) lies above."


@dataclass(frozen=True)
class Line:
    """What one way says: log Z with its interval where it has one, and the mean of log p(x) with its standard error."""

    what: str
    log_z: LogPartition | None
    log_p: tuple[float, float]
    verdict: str  # on log p(x), in a word or two
    meaning: str


def annealing(
    model: GenerativeModel, lock: AbstractContextManager, images: Tensor, temperatures: int, chains: int
) -> Callable[[Job], AnnealingReport]:
    """The work of a job that anneals forwards, backwards and from images (N, C, H, W): what the command line does.

    The lock is held for one temperature at a time, so that nobody who wants the same model waits for the whole.
    """

    def work(job: Job) -> AnnealingReport:
        steps = annealing_report_steps(model, images, temperatures, chains)
        while True:
            try:
                with lock:
                    share = next(steps)
            except StopIteration as end:
                return end.value
            job.report(share)

    return work


def lines(found: AnnealingReport) -> list[Line]:
    """What each way says."""
    negative_energy = found.optimistic + found.forwards.value  # log p(x) + log Z
    backwards = _mean_and_error(negative_energy - found.backwards.value)
    forwards = EITHER if found.of_bound else OPTIMISTIC
    rows = [
        Line("Forwards", found.forwards, _mean_and_error(found.optimistic), *forwards),
        Line("Backwards", found.backwards, backwards, *(BOUND if found.backwards_is_bound else NO_BOUND)),
        Line("From images (RAISE)", None, _mean_and_error(found.conservative), *CONSERVATIVE),
    ]
    if found.exact is not None:
        rows.append(Line("Exact", found.exact, _mean_and_error(negative_energy - found.exact.value),
                         *(EXACT_BOUND if found.of_bound else EXACT)))  # fmt: skip
    return rows


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error; NaN where one value says nothing of their spread."""
    return float(values.mean()), float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
