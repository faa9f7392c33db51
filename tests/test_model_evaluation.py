"""What the Model page says of training health and of an annealed log Z, and the figures of the latter."""

from __future__ import annotations

import json

import numpy
import pytest

from dashboard.figures.annealing import trace_figure, weights_figure
from dashboard.views import model_evaluation as view
from gdm_core.health import divergence
from gdm_core.likelihoods import log_partition
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from pipelines.evaluation import _log_partition_record
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import page, words


@pytest.fixture(scope="module")
def annealed() -> dict:
    """The record of a real annealing, as it comes back from a file."""
    model = build_model("rbm", (1, 6, 6), hidden_units=22)
    return json.loads(json.dumps(_log_partition_record(log_partition(model, 500, 40, seeded_generator(0)))))


@pytest.fixture
def registered(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "rbm")
        yield


def evaluation(log_z: dict, findings: list[dict], verdict: str) -> dict:
    test = {"standard_error": 0.25, "log_partition": log_z}
    return {"likelihood": {"test": test}, "health": {"verdict": verdict, "findings": findings}}


def test_findings_and_the_annealing_are_shown(registered, annealed, monkeypatch) -> None:
    finding = {"name": "x", "value": 0.4, "verdict": "watch", "sentence": "12 of 30 hidden units never fire."}
    monkeypatch.setattr(view, "evaluation_of", lambda version: evaluation(annealed, [finding], "watch"))
    said = words(page("model", model="digits-rbm/1"))
    assert "Something here wants to be watched." in said and "12 of 30 hidden units never fire." in said
    assert f"log Z = **{annealed['value']:.2f}**" in said and "40 chains through 500 temperatures" in said
    assert "would decide" not in said


def test_a_run_that_went_back_is_said_to_have(registered, annealed, monkeypatch) -> None:
    finding = divergence(3, 0.1, 0.0125)
    monkeypatch.setattr(view, "evaluation_of", lambda version: evaluation(annealed, [finding.to_dict()], "watch"))
    said = words(page("model", model="digits-rbm/1"))
    assert "diverged 3 times" in said and "learning rate 0.0125 " in said and "Nothing speaks against" not in said


def test_a_doubtful_schedule_is_said_to_be(registered, annealed, monkeypatch) -> None:
    doubt = annealed | {"doubt": "Three chains would decide: anneal with more temperatures."}
    monkeypatch.setattr(view, "evaluation_of", lambda version: evaluation(doubt, [], ""))
    test = page("model", model="digits-rbm/1")
    assert len(test.warning) == 1 and test.warning[0].value.startswith("Three chains would decide")
    assert "Training health" not in words(test)


def test_a_run_without_an_evaluation_has_nothing_to_show(registered) -> None:
    said = words(page("model", model="digits-rbm/1"))
    assert "Training health" not in said and "log Z = " not in said


def test_the_figures_show_the_weights_and_their_spread(annealed) -> None:
    figure = weights_figure(annealed["log_weights"], annealed["value"], annealed["low"], annealed["high"])
    assert sorted(figure.data[0].x) == sorted(annealed["log_weights"]) and len(figure.data[0].x) == 40
    assert {shape.x0 for shape in figure.layout.shapes} == {annealed["low"], annealed["value"]}
    trace = annealed["trace"]
    bands = trace_figure(trace["betas"], trace["quantiles"], trace["log_weights"]).data
    assert [band.name for band in bands] == ["middle 90% of the chains", "middle 50% of the chains"]
    values = numpy.array(trace["log_weights"])
    count = len(trace["betas"])
    numpy.testing.assert_allclose(bands[0].y[:count], values[4] - values[2])
    numpy.testing.assert_allclose(bands[0].y[count:], (values[0] - values[2])[::-1])
