"""A Markov chain as it is watched: where it stands at a few moments on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

State = TypeVar("State")

FRAMES = 50  # moments at most after the start


def moments(step: Callable[[State], State], start: State, steps: int) -> Iterator[State]:
    """Yield the start, then where the chain stands at up to 50 moments, the last of them after `steps` steps."""
    yield start
    state, every = start, -(-steps // FRAMES)
    for taken in range(1, steps + 1):
        state = step(state)
        if taken % every == 0 or taken == steps:
            yield state
