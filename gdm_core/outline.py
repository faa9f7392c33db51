"""The outline of a model: its tensors' names, shapes and dtypes, found without their memory.

The model is built on torch's meta device, where tensors have no values. Constructors do two things there that make no
sense: they draw starting values, which is left out, and some read a value back (a norm, say), which then is 1.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.overrides import TorchFunctionMode

from gdm_core.contract import GenerativeModel
from gdm_core.registry import build_model

RANDOM_STARTS = {
    "normal_", "uniform_", "trunc_normal_", "bernoulli_", "exponential_", "xavier_uniform_", "xavier_normal_",
    "kaiming_uniform_", "kaiming_normal_", "orthogonal_",
}  # fmt: skip
SCALINGS = {"mul", "__mul__", "__rmul__", "div", "__truediv__"}
VALUES = {"item": 1.0, "__float__": 1.0, "__int__": 1, "__bool__": True}


def model_outline(
    architecture: str, data_shape: Sequence[int], arguments: dict[str, Any], parts: int
) -> GenerativeModel:
    """The model on the meta device. Raises ValueError where it cannot be built or has more than `parts` parts."""
    try:
        with torch.device("meta"), _ShapesAlone(), _bounded_building(parts):
            return build_model(architecture, data_shape, **arguments)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"no {architecture} can be built of images {tuple(data_shape)}: {error}") from error


class _ShapesAlone(TorchFunctionMode):
    """Leaves out starting values and answers for values. The shapes stay exact.

    A starting value, a scaling by a number and a mean would do on the meta device too, but torch takes seconds to load
    its compiler for the first of them.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in RANDOM_STARTS:
            return args[0] if args else kwargs["tensor"]
        if name in VALUES:
            return VALUES[name]
        if name in SCALINGS and isinstance(args[1], float) and args[0].is_floating_point():
            return args[0]
        if name == "mean" and args[0].is_floating_point():
            return args[0].sum(*args[1:], **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def _bounded_building(limit: int) -> Iterator[None]:
    """Stop this thread's construction of modules after `limit` registrations."""
    count, thread = 0, threading.get_ident()

    def counted(module: nn.Module, name: str, value: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > limit:
            raise ValueError(f"its arguments ask for more than the {limit} parts its tensors allow")

    hooks = [
        torch_modules.register_module_parameter_registration_hook(counted),
        torch_modules.register_module_module_registration_hook(counted),
        torch_modules.register_module_buffer_registration_hook(counted),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
