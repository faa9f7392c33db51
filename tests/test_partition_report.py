"""What the command line says of an annealed log Z."""

from __future__ import annotations

import re

import pytest

from gdm_core.data import load_dataset, treatment_for
from gdm_core.registry import build_model
from pipelines.evaluation import split_likelihood
from pipelines.partition_report import partition_report
from pipelines.tracking import load_model
from tests.live_models import register_model
from tests.stores import new_store, using


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_both_sides_meet_and_are_called_what_they_are(tmp_path) -> None:
    with using(new_store(tmp_path)):
        uri = register_model(tmp_path, "rbm")
        exact = load_model(uri).exact_log_partition().item()
        lines = partition_report(uri, 300, 50, 20)
    forwards, backwards, truth = (numbers(line) for line in lines[1:4])
    assert truth == [pytest.approx(exact, abs=1e-3)] and lines[3].startswith("log Z exactly")
    for value, low, high in (forwards, backwards):
        assert low <= value <= high and value == pytest.approx(exact, abs=0.1)
    assert "on average too small" in lines[1] and "not a bound" in lines[2]
    optimistic, conservative, gap = (numbers(line)[0] for line in lines[5:8])
    assert gap == pytest.approx(optimistic - conservative, abs=2e-3)


def test_a_model_that_does_not_anneal_is_refused(tmp_path) -> None:
    with using(new_store(tmp_path)):
        uri = register_model(tmp_path, "nade")
        with pytest.raises(ValueError, match="does not anneal over images"):
            partition_report(uri, 10, 5, 2)


def test_a_small_machine_is_evaluated_with_its_exact_log_z_unless_temperatures_are_asked_for() -> None:
    digits, small = load_dataset("digits"), build_model("rbm", (1, 8, 8), hidden_units=4)
    treatment = treatment_for(None, digits.levels, "binary")
    assert split_likelihood(small, digits, treatment, "validation").kind == "exact"
    assert split_likelihood(small, digits, treatment, "validation", temperatures=5).kind == "estimate"
