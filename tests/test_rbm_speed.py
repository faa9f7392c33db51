"""What the comparison with scikit-learn's machine rests on: its parameters in ours, equal steps, a report of both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # it is a script: it finds its neighbours so

import rbm_contestants as rbm  # noqa: E402
import rbm_speed  # noqa: E402
import turns  # noqa: E402
from turns import Turns  # noqa: E402


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.rand(200, *rbm.SHAPE) < 0.2).float()


def test_scikit_learns_parameters_say_the_same_in_our_machine(images: torch.Tensor) -> None:
    other = rbm.theirs(1).fit(images.flatten(1).numpy())
    model = rbm.loaded(other, rbm.machine())
    with torch.no_grad():
        found = model.energy(images[:20])
    assert np.allclose(found.numpy(), other._free_energy(images[:20].flatten(1).numpy()), rtol=1e-5)


@pytest.mark.parametrize("make", [rbm.our_step, rbm.loop_step])
def test_a_step_moves_a_machine(make: Callable, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    machines, plain = [], rbm.machine
    monkeypatch.setattr(rbm, "machine", lambda: machines.append(plain()) or machines[-1])
    step = make(images.bool().numpy())
    (machine,) = machines
    before = machine.weight.detach().clone()
    step()
    assert not torch.equal(machine.weight, before)


def test_each_phase_of_a_deep_machine_is_timed_by_itself(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, build = [], rbm.gdm_core.build_model
    monkeypatch.setattr(rbm.gdm_core, "build_model", lambda *a, **k: built.append(build(*a, **k)) or built[-1])
    monkeypatch.setattr(rbm, "DEEP", {"dbn": (8, 6), "dbm": (8, 6)})
    assert (rbm.phases("dbn"), rbm.phases("dbm")) == (
        ["layer 1", "layer 2", "up-down"], ["layer 1", "layer 2", "mean field"],
    )  # fmt: skip
    for phase, moved in enumerate([{0}, {1}]):
        step = rbm.deep_step("dbn", phase, images.bool().numpy())
        before = [machine.weight.detach().clone() for machine in built[-1].machines]
        step()
        pairs = zip(built[-1].machines, before, strict=True)
        assert {i for i, (machine, old) in enumerate(pairs) if not torch.equal(machine.weight, old)} >= moved


class Counts:
    """A contestant that says by an error how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == 2 * (turns.WARM_UP + 2) + 1:
            raise RuntimeError("after the second turn")


def test_a_contestant_keeps_its_state_between_turns_and_its_errors_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    # A new process runs the main module's file again, and page tests leave a page in its place.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    with Turns({"a": Counts}, threads=1) as taking:
        assert taking.seconds("a", 2) > 0 and taking.seconds("a", 2) > 0
        with pytest.raises(RuntimeError, match="after the second turn"):
            taking.seconds("a", 1)


class InThisProcess(Turns):
    """The same turns without the cost of starting processes."""

    def __enter__(self) -> InThisProcess:
        self.steps = {name: make() for name, make in self.contestants.items()}
        return self

    def seconds(self, name: str, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self.steps[name]()
        return time.perf_counter() - begin


def test_the_report_has_a_row_for_each_and_a_ratio_to_scikit_learn(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbm, "DEEP", {"dbm": (6, 4)})
    monkeypatch.setattr(rbm_speed, "Turns", InThisProcess)
    found = {"speed": {**rbm_speed.measure(images, 2), "where": {"device": "a test"}}}
    ratio = found["speed"]["ratio"][rbm.OURS]
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
    text = "\n".join(rbm_speed.report(found))
    assert all(f"| {name} |" in text for name in (rbm.OURS, rbm.THEIRS, rbm.LOOP, "dbm 784-6-4, mean field"))
    assert "a test" in text and "What has been learnt" not in text
