"""A GPU that is not there: tensors on it have shapes and no numbers, and what would wait for it is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Copies(TorchDispatchMode):
    """Counts copies between devices, by their direction; of those to the GPU the ones from pinned memory apart.

    Whoever copies to the host waits until the GPU has come that far; a copy to the GPU waits only from memory that is
    not pinned. Numbers that Python wants are an error without this mode: `FakeTensorMode` has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.pinned: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.ops.aten._pin_memory.default:
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        result = func(*args, **(kwargs or {}))
        if func in COPIES:
            source = args[1] if func is COPIES[1] else args[0]
            if source.device.type != result.device.type:
                pinned = "pinned " if any(source is one for one in self.pinned) else ""
                way = f"{pinned}{source.device.type} to {result.device.type}"
                self.counts[way] = self.counts.get(way, 0) + 1
        return result


class NoNumbers(FakeTensorMode):
    """`FakeTensorMode`, of which a tensor's copy keeps the one that made it."""

    def __deepcopy__(self, memo: dict) -> NoNumbers:
        return self


@contextmanager
def pretended_gpu(*models: nn.Module) -> Iterator[Copies]:
    """A block that makes tensors without numbers, with the models on "cuda"."""
    with NoNumbers(), Copies() as copies:
        for model in models:
            _move(model)
        yield copies


def _move(model: nn.Module) -> None:
    """As `model.to("cuda")`, which cannot exchange numbers for none."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(_without_numbers(parameter), parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, _without_numbers(buffer))


def _without_numbers(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
