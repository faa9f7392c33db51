"""What the comparison with scikit-learn's machine rests on: its parameters in ours, equal steps, a report of both."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # it is a script: it finds its neighbours so

import rbm_speed  # noqa: E402


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.rand(200, *rbm_speed.SHAPE) < 0.2).float()


def test_scikit_learns_parameters_say_the_same_in_our_machine(images: torch.Tensor) -> None:
    other = rbm_speed.theirs(1).fit(images.flatten(1).numpy())
    model = rbm_speed.loaded(other, rbm_speed.machine())
    with torch.no_grad():
        found = model.energy(images[:20])
    assert np.allclose(found.numpy(), other._free_energy(images[:20].flatten(1).numpy()), rtol=1e-5)


def test_a_step_of_each_moves_its_own_machine(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    machines, plain = [], rbm_speed.machine
    monkeypatch.setattr(rbm_speed, "machine", lambda: machines.append(plain()) or machines[-1])
    steps = rbm_speed.contestants(images)
    for name, at in ((rbm_speed.OURS, 0), (rbm_speed.LOOP, 1)):
        before = [one.weight.detach().clone() for one in machines]
        steps[name]()
        assert [torch.equal(one.weight, old) for one, old in zip(machines, before, strict=True)] == [at == 1, at == 0]
    steps[rbm_speed.THEIRS]()


def test_the_report_has_a_row_for_each_and_a_ratio_to_scikit_learn(images: torch.Tensor) -> None:
    found = {"speed": {**rbm_speed.measure(images, 2), "where": {"device": "a test"}}}
    ratio = found["speed"]["ratio"][rbm_speed.OURS]
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
    text = "\n".join(rbm_speed.report(found))
    assert all(f"| {name} |" in text for name in (rbm_speed.OURS, rbm_speed.THEIRS, rbm_speed.LOOP))
    assert "a test" in text and "What has been learnt" not in text
