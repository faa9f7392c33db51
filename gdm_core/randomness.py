"""Seeded randomness: one stream per purpose, and training untouched by whatever else draws numbers."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

import torch


def seeded_generator(seed: int, *purpose: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator whose stream depends on the seed and on what it is for: seeded_generator(0, "order", epoch)."""
    mixed = zlib.crc32(repr((int(seed), *map(str, purpose))).encode())
    return torch.Generator(device=device).manual_seed((int(seed) << 32 | mixed) & (2**63 - 1))


def random_state() -> dict[str, torch.Tensor]:
    """torch's global random state, on the processor and on every GPU in use.

    Taking it waits for no GPU: a GPU's generator is a seed and a count of what was drawn, both kept on the host.
    """
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state |= {f"cuda:{i}": torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())}
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    for device, value in state.items():
        torch.set_rng_state(value) if device == "cpu" else torch.cuda.set_rng_state(value, device)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under a global seed and put the earlier random state back."""
    before = random_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before)
