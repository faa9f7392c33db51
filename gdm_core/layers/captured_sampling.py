"""Sampling on a GPU by one launch: everything that is done for a batch of images, recorded as a CUDA graph.

Drawn value after value, a batch takes a launch for every layer of every value, tens of thousands of them, and the GPU
waits for the next one most of the time. A graph holds them all. Replayed, it reads its noise where the first batch's
stood, and the parameters where they stand: what was learnt in place since then counts. Whatever else it depends on is
its key, and another key means another graph. Only the last graph is kept, since each holds the memory of a batch.

The first batch of a kind is drawn the plain way, which is also the warm-up that recording needs: a batch that is drawn
once is not worth a graph. The second one is recorded. On a processor nothing of this happens. No step is taken under
autocast, whose casts of parameters would be recorded as they were.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from gdm_core.layers.raster_sampling import Steps, last

Inputs = tuple[Tensor, ...]


def draw_images(model: nn.Module, steps: Steps, inputs: Inputs, temperature: float) -> Tensor:
    """The last of steps(temperature, *inputs): on a GPU by a graph.

    The inputs are all that differs between two batches of a kind; `steps` reads no number of a tensor.
    """
    if LAST_GRAPH.recorder.records(inputs[0].device):
        return LAST_GRAPH.draw(model, steps, inputs, temperature)
    return last(steps(temperature, *inputs))


class Recorder(Protocol):
    """What records on a device and replays."""

    def records(self, device: torch.device) -> bool:
        """Whether what is done on a device can be recorded now."""
        ...

    def circumstances(self, device: torch.device) -> tuple:
        """What a recording depends on beside its model and inputs."""
        ...

    def warm_up(self, draw: Callable[[], Tensor], device: torch.device) -> Tensor:
        """What `draw` returns, with everything set up that is only set up once."""
        ...

    def record(self, draw: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        """(what does again all that `draw` did, in the same places; the tensor that it returned)."""
        ...


class CudaGraphs:
    """Records what is launched on a GPU: see torch.cuda.CUDAGraph.

    Warming up and recording share a stream, because libraries keep a workspace for each: one that is set up while
    recording would be part of that graph's memory for good.
    """

    def __init__(self) -> None:
        self.streams: dict[torch.device, torch.cuda.Stream] = {}

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self.streams:
            self.streams[device] = torch.cuda.Stream(device)
        return self.streams[device]

    def records(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def circumstances(self, device: torch.device) -> tuple:
        """Replays must queue up on one stream, because they share memory; the precision chooses the kernels."""
        return torch.cuda.current_stream(device), torch.get_float32_matmul_precision()

    def warm_up(self, draw: Callable[[], Tensor], device: torch.device) -> Tensor:
        current, side = torch.cuda.current_stream(device), self._stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            images = draw()
        current.wait_stream(side)
        images.record_stream(current)  # its memory is not given away before the caller's stream is done with it
        return images

    def record(self, draw: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        """Calls of other threads that no graph may hold are not refused meanwhile; whether they do harm is untried."""
        graph, stream = torch.cuda.CUDAGraph(), self._stream(device)
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            images = draw()
        return graph.replay, images


class Graph:
    """The drawing of one batch, recorded, with inputs that are written over for each further one."""

    @torch.inference_mode(False)  # what is written over later must not be an inference tensor
    @torch.no_grad()
    def __init__(self, draw: Callable[..., Tensor], inputs: Inputs, recorder: Recorder) -> None:
        self.inputs = tuple(given.clone() for given in inputs)
        self.replay, self.images = recorder.record(lambda: draw(*self.inputs), inputs[0].device)

    def __call__(self, inputs: Inputs) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.replay()
        return self.images.clone()


class LastGraph:
    """Draws batches, and keeps the graph of the last kind that was drawn twice in a row."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.lock = recorder, threading.Lock()
        self.key: tuple = ()
        self.graph: Graph | None = None
        self.warm: int | None = None  # the thread that drew the first batch: libraries are set up for each thread

    def draw(self, model: nn.Module, steps: Steps, inputs: Inputs, temperature: float) -> Tensor:
        """The last of steps(temperature, *inputs)."""

        def draw(*inputs: Tensor) -> Tensor:
            return last(steps(temperature, *inputs))

        device = inputs[0].device
        key = (*graph_key(model, inputs, temperature), *self.recorder.circumstances(device))
        with self.lock:  # also while warming up: another thread's recording would record it too
            thread = threading.get_ident()
            if key == self.key and self.graph is not None:
                return self.graph(inputs)
            is_warm = key == self.key and self.warm == thread
            self.key, self.graph = (), None  # until it has succeeded: after an error everything begins again
            if is_warm:
                self.graph = Graph(draw, inputs, self.recorder)
                images = self.graph(inputs)
            else:
                images = self.recorder.warm_up(lambda: draw(*inputs), device)
            self.key, self.warm = key, thread
            return images


def graph_key(model: nn.Module, inputs: Inputs, temperature: float) -> tuple:
    """What a recorded drawing depends on and a replay would not notice.

    The model and its mode, where its parameters and buffers stand and what they are (a cast or moved model has them
    elsewhere), the inputs' shapes and the temperature.
    """
    parts = [*model.parameters(), *model.buffers()]
    standing = [(part.data_ptr(), part.dtype, part.shape, part.stride()) for part in parts]
    given = [(each.shape, each.dtype, each.device) for each in inputs]
    return weakref.ref(model), model.training, temperature, *standing, *given


LAST_GRAPH = LastGraph(CudaGraphs())
