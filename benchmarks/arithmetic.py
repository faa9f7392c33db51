"""How much arithmetic a learning step is, and how fast the machine could do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from gdm_core.contract import GenerativeModel, TrainingConfig
from gdm_core.training import Progress

MATRIX = 2048

# Models whose sums are no matrix products: multiply-adds of one image's learning step, by what their formulas need.
FORMULAS: dict[str, Callable[[GenerativeModel], int]] = {
    # Two D x H products forward (the running sum, V_d . h_d), two gradients for each; nothing for units computed anew.
    "nade": lambda model: 6 * model.dimensions * model.arguments["hidden_units"],
}


class NoModules:
    """In the place of torch's tracker of modules: everything counts as one."""

    parents = ("Global",)

    def __enter__(self) -> NoModules:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was set up."""


def learning_step_cost(
    model: GenerativeModel, steps: Iterator[Progress], config: TrainingConfig
) -> tuple[float, str | None]:
    """Multiply-adds per image of a learning step, and how they were counted; takes one step.

    "operators": what matrix products and convolutions did in that step, masked weights included; "formula": what the
    model's formulas need; None where there is neither.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()  # which module did what is not asked, and its hooks refuse torch.autograd.grad
    with counter:
        progress = next(steps)
    if model.name in FORMULAS:
        return float(FORMULAS[model.name](model)), "formula"
    images = progress.images - (progress.step - 1) * config.batch_size
    total = counter.get_total_flops() / 2 / images  # a multiply-add is counted as two operations
    return total, "operators" if total else None


def matrix_rate(device: str) -> float:
    """GFLOP/s of one float32 product of two 2048 x 2048 matrices: 2 n^3 operations."""
    a = torch.rand(MATRIX, MATRIX, device=device)
    product = a @ a  # what the first one sets up is not the machine's rate
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    torch.matmul(a, a, out=product)
    if device != "cpu":
        torch.cuda.synchronize()
    return 2 * MATRIX**3 / (time.perf_counter() - begin) / 1e9


def share_of_rate(multiply_adds_per_image: float, images_per_second: float, gflops: float) -> float:
    """The part of the machine's matrix rate that learning at this speed uses."""
    return 2 * multiply_adds_per_image * images_per_second / (gflops * 1e9)
