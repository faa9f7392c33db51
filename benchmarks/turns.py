"""Contestants that take turns, each in a process of its own.

In one process they would disturb each other: the threads of one library go on spinning for a while after its work is
done and take the cores from the next. A process that waits for its turn leaves the cores alone.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import torch

PAUSE = 0.2  # seconds between turns, in which threads go to sleep
WARM_UP = 3  # steps at the beginning of a turn that are not timed: they wake the threads and fill the caches

Step = Callable[[], object]
_step: Step  # this process's contestant


class Turns:
    """What `make` returns is called over and over in the contestant's own process; `make` itself must be picklable."""

    def __init__(self, contestants: Mapping[str, Callable[[], Step]], threads: int) -> None:
        self.contestants, self.threads, self._stack = contestants, threads, ExitStack()
        self._processes: dict[str, ProcessPoolExecutor] = {}

    def __enter__(self) -> Turns:
        context = multiprocessing.get_context("spawn")
        for name, make in self.contestants.items():
            process = ProcessPoolExecutor(1, context, _begin, (make, self.threads))
            self._processes[name] = self._stack.enter_context(process)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def seconds(self, name: str, steps: int, warm_up: int = WARM_UP) -> float:
        """How long so many steps of a contestant took, after a few more, while all others waited."""
        time.sleep(PAUSE)
        return self._processes[name].submit(_take, steps, warm_up).result()


def _begin(make: Callable[[], Step], threads: int) -> None:
    global _step
    torch.set_num_threads(threads)
    _step = make()


def _take(steps: int, warm_up: int) -> float:
    for _ in range(warm_up):
        _step()
    begin = time.perf_counter()
    for _ in range(steps):
        _step()
    return time.perf_counter() - begin
