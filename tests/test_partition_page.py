"""The Model page's section on log Z without a browser, and what it rests on: the job, its lines, their CSV."""

from __future__ import annotations

import csv
import io
import re
import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard import loading, partition, trained_on
from dashboard.jobs import Cancelled, Job
from dashboard.views import model_evaluation
from dashboard.views import model_partition as view
from gdm_core.data import DataError
from gdm_core.likelihoods import AnnealingReport, annealing_report
from gdm_core.registry import build_model
from pipelines.partition_report import lines_of, partition_report
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import finished, page, words

FEW = {"temperatures": "100", "chains": "20"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with a small machine, and a model without log Z."""
    folder = tmp_path_factory.mktemp("partition")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("rbm", "nade")}


@pytest.fixture(scope="module")
def found() -> AnnealingReport:
    """A report of a machine of nine pixels, with exact draws."""
    torch.manual_seed(0)
    model = build_model("rbm", (1, 3, 3), hidden_units=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return annealing_report(model, torch.randint(2, (6, 1, 3, 3)).float(), 50, 20, 5)


def annealed(test: AppTest) -> AppTest:
    """After a press on the button."""
    return finished(button(test, "Anneal").click().run())


def button(test: AppTest, label: str):
    return next(one for one in test.button if one.label == label)


def near(shown: list[str], printed: list[str]) -> bool:
    """Whether numbers are equal but for the digits the page leaves out."""
    return [float(one) for one in shown] == pytest.approx([float(one) for one in printed], abs=0.006)


# --- what is computed -------------------------------------------------------------------------------------------------


def test_the_lines_are_log_z_and_what_it_makes_of_log_p(found) -> None:
    forwards, backwards, raised, exact = partition.lines(found)
    for line in (forwards, backwards, exact):
        energy = line.log_p[0] + line.log_z.value
        assert energy == pytest.approx((found.optimistic + found.forwards.value).mean().item())
    assert exact.log_z is found.exact and raised.log_z is None
    assert raised.log_p == pytest.approx((found.conservative.mean().item(), found.conservative.std().item() / 6**0.5))
    assert "conservative" in raised.verdict and "too good" in forwards.verdict and "too small" in backwards.verdict
    assert partition.lines(replace(found, backwards_is_bound=False))[1].verdict == "no bound"
    assert len(partition.lines(replace(found, exact=None))) == 3


def test_the_model_is_free_between_two_temperatures_and_the_job_can_be_cancelled() -> None:
    model, lock = build_model("rbm", (1, 4, 4), hidden_units=3), threading.Lock()
    work = partition.annealing(model, lock, torch.zeros(2, 1, 4, 4), 30, 4)
    shares: list[float] = []

    class Watched(Job):
        def report(self, progress: float, preview: object = None) -> None:
            assert not lock.locked()
            shares.append(progress)
            super().report(progress, preview)
            if progress > 0.5:
                self.cancel()

    with pytest.raises(Cancelled):
        work(Watched("partition"))
    assert shares[0] < 0.1 and shares == sorted(shares) and 0.5 < shares[-1] < 0.7
    plain = partition.annealing(model, nullcontext(), torch.zeros(2, 1, 4, 4), 30, 4)(Job("partition"))
    own = annealing_report(model, torch.zeros(2, 1, 4, 4), 30, 4)
    assert torch.equal(plain.conservative, own.conservative) and plain.forwards.value == own.forwards.value


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_command_line_says(models) -> None:
    test = page("model", model="digits-rbm/1", **FEW)
    assert "No evaluation of log Z is stored with this model." in words(test) and not test.table
    test = annealed(test)
    numbers = test.table[0].value
    said = [re.findall(r"-?\d+\.\d+", line) for line in partition_report(models["rbm"], 100, 20, partition.IMAGES)[1:]]
    for row, expected in zip(["Forwards", "Backwards"], said[:2], strict=True):
        interval = numbers["95 % interval"][row].split(" to ")
        assert near([numbers["log Z"][row], *interval], expected)
    assert near([numbers["log Z"]["Exact"]], said[2])
    for row, expected in (("Forwards", said[4]), ("From images (RAISE)", said[5])):
        assert near([numbers["log p(x)"][row].split(" ±")[0]], expected[:1])
    assert not test.warning and "100 validation images of digits" in words(test)
    assert numbers["which is"].tolist() == ["too good on average", "no bound", "conservative", "exact"]


def test_the_csv_has_every_number_with_what_it_is_of(models, found) -> None:
    version = next(one for one in loading.versions() if one.name == "digits-rbm")
    text = view.csv_of(view.table(partition.lines(found), version, loading.model(version.uri), 6, found)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["log_z_nats"]) for row in rows if row["log_z_nats"]] == [
        found.forwards.value, found.backwards.value, found.exact.value]  # fmt: skip
    assert float(rows[2]["log_p_nats_per_image"]) == found.conservative.mean().item()
    for row in rows:
        assert (row["model"], row["data_set"], row["split"]) == (version.uri, "digits", "validation")
        assert row["images"] == "6"
        assert row["pixels"].startswith("binary") and (row["temperatures"], row["chains"]) == ("50", "20")


def test_of_a_bound_nothing_is_called_optimistic(found) -> None:
    """It less a log Z that is too small may be too small as well as too large."""
    of_bound = replace(found, of_bound=True)
    verdicts = [row.verdict for row in partition.lines(of_bound)]
    assert verdicts == ["no bound", "too small on average", "conservative", "lower bound"]
    assert not any("optimistic" in line for line in lines_of(of_bound, "NAME", "digits"))
    assert any("a bound on -E(x) less log Z" in line for line in lines_of(of_bound, "NAME", "digits"))
    assert any("optimistic" in line for line in lines_of(found, "NAME", "digits"))


def test_a_doubt_is_a_warning(models, found, monkeypatch) -> None:
    doubted = replace(found, forwards=replace(found.forwards, doubt="Three chains would decide."))
    monkeypatch.setattr(view, "annealing", lambda *rest: lambda job: doubted)
    test = annealed(page("model", model="digits-rbm/1", **FEW))
    assert [one.value for one in test.warning] == ["Three chains would decide."] and len(test.table) == 1


def test_a_cancelled_annealing_can_be_started_again(models, monkeypatch) -> None:
    real = view.annealing

    def endless(*rest):
        def work(job: Job) -> None:
            job.cancel()
            job.report(0.5)

        return work

    monkeypatch.setattr(view, "annealing", endless)
    test = annealed(page("model", model="digits-rbm/1", **FEW))
    assert "Cancelled." in words(test) and not test.table
    monkeypatch.setattr(view, "annealing", real)
    assert len(annealed(test).table) == 1


def test_what_fails_is_said_in_one_sentence(models, monkeypatch) -> None:
    other = build_model("nade", (1, 2, 2))
    monkeypatch.setattr(view, "annealing", lambda *rest: lambda job: annealing_report(other, torch.zeros(1, 1, 2, 2)))
    test = annealed(page("model", model="digits-rbm/1", **FEW))
    assert "does not anneal over images" in test.error[0].value and not test.table


def test_a_model_that_does_not_anneal_has_no_such_section(models) -> None:
    test = page("model", model="digits-nade/1")
    assert "Partition function" not in words(test) and all(one.label != "Anneal" for one in test.button)


def test_a_model_whose_chains_do_not_start_at_images_says_so(models, monkeypatch) -> None:
    monkeypatch.setattr(view, "why_not_over_images", lambda model: "It has no energy: try `evaluate NAME`.")
    test = page("model", model="digits-rbm/1")
    assert f"It has no energy: try `evaluate {loading.model(models['rbm']).uri}`." in words(test)
    assert all(one.label != "Anneal" for one in test.button)


def test_without_the_data_it_says_what_is_missing(models, monkeypatch) -> None:
    def nowhere(card):
        raise DataError("digits is not here: put it into GDM_DATA")

    monkeypatch.setattr(trained_on, "dataset", nowhere)
    test = page("model", model="digits-rbm/1")
    assert "No validation images of digits here" in test.warning[0].value and "GDM" in test.warning[0].value
    assert all(one.label != "Anneal" for one in test.button)


@pytest.mark.parametrize("kind", ["exact", "estimate"])
def test_what_the_evaluation_stored_is_shown_first(models, found, monkeypatch, kind: str) -> None:
    log_z = {"kind": "exact", "value": 12.345}
    if kind == "estimate":
        trace = {"betas": [0.5, 1.0], "quantiles": [0.05, 0.5, 0.95], "log_weights": [[1, 2], [2, 3], [3, 4]]}
        log_z = {"kind": kind, "value": 12.345, "low": 12.0, "high": 13.0, "temperatures": 7, "chains": 5, "doubt": "",
                 "effective_sample_size": 4.0, "log_weights": [12.0, 13.0], "trace": trace}  # fmt: skip
    stored = {"likelihood": {"test": {"standard_error": 0.1, "log_partition": log_z}}}
    monkeypatch.setattr(model_evaluation, "evaluation_of", lambda version: stored)
    said = words(page("model", model="digits-rbm/1"))
    assert "log Z = **12.3" in said and ("exactly" in said) == (kind == "exact")
    assert ("with 5 chains through 7 temperatures" in said) == (kind == "estimate")
