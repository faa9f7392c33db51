"""Drawing by a recorded graph: the same images as drawn value after value, from whatever the parameters are by then.

Without a GPU the graph is one of torch's operations: recorded once, each is done again on the same tensors, as a CUDA
graph does its kernels. A number that Python reads while recording, or keeps from it, is thereby found out too.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gdm_core.contract import GenerativeModel
from gdm_core.layers import captured_sampling
from gdm_core.layers.captured_sampling import CudaGraphs, LastGraph
from gdm_core.layers.raster_sampling import last
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import BUILDERS, IN_RASTER_ORDER
from tests.devices import needs_gpu

SHAPE = (2, 3, 4)
READING = {"_local_scalar_dense", "nonzero", "_unique2", "bincount", "equal", "masked_select"}
AT_ONCE = {"independent_bernoulli"}  # needs no graph
CASES = [name for name in [*IN_RASTER_ORDER, "multiscale_pixel_rnn", "multiscale_pixel_rnn 3 scales", "eonade"]
         if name not in AT_ONCE]  # fmt: skip


class Operations(TorchDispatchMode):
    """Records every operation with its very tensors; `replay` does them again into the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        assert name not in READING, f"{name} reads a number while recording"
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        with torch.inference_mode():
            for func, args, kwargs, before in self.done:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(before), tree_leaves(again), strict=True):
                    if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():  # else done in place
                        old.copy_(new)


class Recorder:
    """Stands in for `CudaGraphs`; remembers what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stream = 0

    def records(self, device: torch.device) -> bool:
        return True

    def circumstances(self, device: torch.device) -> tuple:
        return (self.stream,)

    def warm_up(self, draw: Callable[[], Tensor], device: torch.device) -> Tensor:
        self.asked.append("plain")
        return draw()

    def record(self, draw: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        self.asked.append("record")
        with Operations() as operations:
            images = draw()
        images.fill_(torch.nan)  # nothing has been drawn before the first replay

        def replay() -> None:
            self.asked.append("replay")
            operations.replay()

        return replay, images


class Case:
    """A model, drawn from by a graph and the plain way, from the same noise."""

    def __init__(self, model: GenerativeModel, recorder: Recorder) -> None:
        self.model, self.recorder = model.eval(), recorder

    def draw(self, seed: int, n: int = 5, temperature: float = 1.0, labels: Tensor | None = None) -> Tensor:
        """A sample, after asserting that its steps end in the same."""
        drawn = self.model.sample(n, labels, temperature, seeded_generator(seed))
        plain = last(self.model.sample_steps(n, labels, temperature, seeded_generator(seed)))
        assert torch.equal(drawn, plain) and drawn.dtype == plain.dtype and not drawn.is_inference()
        return drawn

    def asked(self) -> list[str]:
        """What the recorder was asked since the last time."""
        asked, self.recorder.asked = self.recorder.asked, []
        return asked


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """In the place of the one for a GPU."""
    monkeypatch.setattr(captured_sampling, "LAST_GRAPH", LastGraph(Recorder()))
    return captured_sampling.LAST_GRAPH.recorder


@pytest.mark.parametrize("name", CASES)
def test_a_replay_draws_what_would_have_been_drawn(name: str, recorder: Recorder) -> None:
    case = Case(BUILDERS[name](SHAPE, 2), recorder)
    first, second, third = (case.draw(seed) for seed in range(3))
    assert case.asked() == ["plain", "record", "replay", "replay"]
    assert not torch.equal(second, third) and not torch.equal(first, second)
    assert torch.equal(case.draw(1), second)  # also after another batch
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.add_(torch.randn_like(parameter))  # as an optimiser does, in place
    assert not torch.equal(case.draw(1), second)
    assert case.asked() == ["replay", "replay"]


def test_levels_and_real_pixels_too(recorder: Recorder) -> None:
    for model in (
        build_model("pixel_cnn", SHAPE, channels=4, blocks=1, pixels="levels", levels=5),
        build_model("pixel_cnn_plus_plus", SHAPE, channels=3, levels=7),
        build_model("rnade", SHAPE, hidden_units=4, components=2),
    ):
        case = Case(model, recorder)
        assert case.draw(0).unique().numel() > 2 and case.draw(1).unique().numel() > 2 and len(case.draw(2)) == 5
        assert case.asked() == ["plain", "record", "replay", "replay"]


def test_classes_are_an_input_like_noise(recorder: Recorder) -> None:
    case = Case(build_model("conditional_gated_pixel_cnn", SHAPE, classes=3, channels=8, blocks=1), recorder)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.normal_()
    same = [case.draw(0, labels=torch.full((5,), label)) for label in (0, 1, 2, 1)]
    assert case.asked() == ["plain", "record", "replay", "replay", "replay"]
    assert not torch.equal(same[1], same[2]) and torch.equal(same[1], same[3])
    case.draw(4)
    assert case.asked() == ["replay"]  # classes drawn, and not given


def test_what_a_replay_would_not_notice_is_recorded_anew(recorder: Recorder) -> None:
    case = Case(build_model("gated_pixel_cnn", SHAPE, channels=4, blocks=1), recorder)
    fresh = ["plain", "record", "replay"]

    def settle(**how: Any) -> list[str]:
        for seed in range(2):
            case.draw(seed, **how)
        return case.asked()

    assert settle() == fresh
    assert settle(n=4) == fresh
    assert settle(n=4, temperature=0.5) == fresh
    assert settle() == fresh  # only the last one is kept
    case.model.double()
    assert settle() == fresh
    layer = case.model.network.head
    layer.weight = torch.nn.Parameter(layer.weight + 0.5)
    assert settle() == fresh
    case.model.train()
    assert settle() == fresh
    recorder.stream = 1
    assert settle() == fresh
    assert settle() == ["replay", "replay"]
    case.model.load_state_dict({name: value + 0.1 for name, value in case.model.state_dict().items()})
    assert settle() == ["replay", "replay"]
    other = Case(copy.deepcopy(case.model), recorder)  # a model that has drawn can be copied
    other.draw(0)
    assert other.asked() == ["plain"]


def test_only_the_thread_that_has_warmed_up_records(recorder: Recorder) -> None:
    case, asked = Case(build_model("nade", SHAPE, hidden_units=3), recorder), []

    def elsewhere() -> list[str]:
        thread = threading.Thread(target=lambda: case.draw(1))
        thread.start()
        thread.join()
        return case.asked()

    case.draw(0)
    asked += case.asked() + elsewhere()
    case.draw(0)
    case.draw(0)
    asked += case.asked() + elsewhere()
    assert asked == ["plain", "plain", "plain", "record", "replay", "replay"]


def test_within_inference_mode(recorder: Recorder) -> None:
    case = Case(build_model("nade", SHAPE, hidden_units=3), recorder)
    with torch.inference_mode():
        for _ in range(2):
            inside = case.model.sample(5, generator=seeded_generator(0))
    assert torch.equal(inside, case.draw(0))
    assert case.asked() == ["plain", "record", "replay", "replay"]


def test_autocast_is_in_no_recording(recorder: Recorder) -> None:
    """What is recorded under it draws without it, and after the weights have changed, which its casts would not."""
    case = Case(build_model("gated_pixel_cnn", SHAPE, channels=4, blocks=1), recorder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for seed in range(3):
            case.draw(seed)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    case.draw(3)
    assert case.asked() == ["plain", "record", "replay", "replay", "replay"]


class Breaking(Recorder):
    """Fails at whatever `failing` names."""

    failing = ""

    def warm_up(self, draw: Callable[[], Tensor], device: torch.device) -> Tensor:
        images = super().warm_up(draw, device)
        return self._or_fail("plain", images)

    def record(self, draw: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        return self._or_fail("record", super().record(draw, device))

    def _or_fail(self, what: str, result: Any) -> Any:
        if what == self.failing:
            raise RuntimeError("out of memory")
        return result


@pytest.mark.parametrize("failing", ["plain", "record"])
def test_after_an_error_everything_begins_again(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was not drawn has warmed nothing up; a failed recording is not tried again at once."""
    monkeypatch.setattr(captured_sampling, "LAST_GRAPH", LastGraph(Breaking()))
    recorder = captured_sampling.LAST_GRAPH.recorder
    case = Case(build_model("nade", SHAPE, hidden_units=3), recorder)
    if failing == "record":
        case.draw(0)
    recorder.failing = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        case.draw(1)
    recorder.failing = ""
    case.asked()
    for seed in range(3):
        case.draw(seed)
    assert case.asked() == ["plain", "record", "replay", "replay"]


def test_only_a_gpu_records() -> None:
    graphs = CudaGraphs()
    assert graphs.records(torch.device("cuda:1")) and not graphs.records(torch.device("cpu"))
    build_model("nade", SHAPE, hidden_units=3).sample(2)
    assert captured_sampling.LAST_GRAPH.key == ()


@pytest.mark.parametrize("name", ["made with orderings", "made with masks"])
def test_an_ensemble_that_reads_its_members_is_never_recorded(name: str, recorder: Recorder) -> None:
    case = Case(BUILDERS[name](SHAPE, 2), recorder)
    for seed in range(3):
        case.draw(seed)
    assert case.asked() == []


def test_recording_finds_out_a_number_that_is_read() -> None:
    with Operations(), pytest.raises(AssertionError, match="reads a number"):
        torch.ones(3).sum().item()


# --- on a GPU ----------------------------------------------------------------------------------------------------

@needs_gpu
@pytest.mark.parametrize("name", CASES)
def test_cuda_graphs_draw_what_would_have_been_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where no draw falls within rounding of its probability: kernels may differ in their last digit."""
    graphs = LastGraph(CudaGraphs())
    monkeypatch.setattr(captured_sampling, "LAST_GRAPH", graphs)
    model = BUILDERS[name]((1, 6, 5), 2).double().cuda().eval()
    for seed in (0, 1, 2, 1):
        plain = last(model.sample_steps(9, None, 1.0, seeded_generator(seed)))
        assert torch.equal(model.sample(9, generator=seeded_generator(seed)), plain)
        assert (graphs.graph is not None) == (seed > 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    before, graph = plain, graphs.graph
    plain = last(model.sample_steps(9, None, 1.0, seeded_generator(1)))
    assert torch.equal(model.sample(9, generator=seeded_generator(1)), plain)
    assert not torch.equal(plain, before) and graphs.graph is graph


@needs_gpu
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_cuda_graphs_in_single_precision_and_of_other_sizes(
    name: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image, then seventy, then one again: nearly all pixels agree.

    A draw within rounding of its probability may fall to the other side, and the rest of that image follows from it.
    """
    graphs = LastGraph(CudaGraphs())
    monkeypatch.setattr(captured_sampling, "LAST_GRAPH", graphs)
    model = BUILDERS[name]((1, 6, 5), 2).cuda().eval()
    agreeing = []
    for n in (1, 70, 1):
        for seed in range(3):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
                drawn = model.sample(n, generator=seeded_generator(seed))
            plain = last(model.sample_steps(n, None, 1.0, seeded_generator(seed)))
            assert drawn.shape == plain.shape and drawn.dtype == torch.float32
            agreeing.append((drawn == plain).flatten())
            assert (graphs.graph is not None) == (seed > 0)
    assert torch.cat(agreeing).float().mean() > 0.99


@needs_gpu
def test_random_states_of_a_gpu_lie_on_the_host() -> None:
    """`random_state` is taken for every batch: it may not wait for the GPU."""
    torch.rand(3, device="cuda")
    assert torch.cuda.get_rng_state().device.type == "cpu"
