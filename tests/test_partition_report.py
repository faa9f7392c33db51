"""What the command line says of an annealed log Z."""

from __future__ import annotations

import re

import pytest
import torch
from typer.testing import CliRunner

from gdm_core.data import load_dataset, treatment_for
from gdm_core.likelihoods.log_partition import inverse_temperatures, standard_schedule
from gdm_core.registry import build_model
from pipelines import partition_report as module
from pipelines import report
from pipelines.cli import app
from pipelines.evaluation import split_likelihood
from pipelines.partition_report import partition_report
from pipelines.report import likelihood_report
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


def test_evaluate_enumerates_as_the_run_did_and_anneals_where_it_is_asked_to(tmp_path, monkeypatch) -> None:
    with using(new_store(tmp_path)):
        uri = register_model(tmp_path, "rbm")
        exact, annealed = (likelihood_report(uri, "validation", 10, asked) for asked in (None, 50))
    assert exact["kind"] == "exact" and annealed["kind"] == "estimate"
    assert annealed["settings"]["temperatures"] == 50
    asked = []
    monkeypatch.setattr(report, "likelihood_report", lambda *rest: asked.append(rest[-1]) or {})
    monkeypatch.setattr(module, "partition_report", lambda *rest: asked.append(rest[1]) or [])
    for line in ("evaluate a", "evaluate a --temperatures 70", "evaluate a --temperatures standard", "partition a",
                 "partition a --temperatures standard"):  # fmt: skip
        assert CliRunner().invoke(app, line.split()).exit_code == 0
    assert asked == [None, 70, "standard", 2000, "standard"]
    refused = CliRunner().invoke(app, ["evaluate", "a", "--temperatures", "many"])
    assert isinstance(refused.exception, ValueError) and "--temperatures must be" in str(refused.exception)
    assert torch.equal(inverse_temperatures("standard"), standard_schedule())


def test_a_small_machine_is_evaluated_with_its_exact_log_z_unless_temperatures_are_asked_for() -> None:
    digits, small = load_dataset("digits"), build_model("rbm", (1, 8, 8), hidden_units=4)
    treatment = treatment_for(None, digits.levels, "binary")
    assert split_likelihood(small, digits, treatment, "validation").kind == "exact"
    assert split_likelihood(small, digits, treatment, "validation", temperatures=5).kind == "estimate"
