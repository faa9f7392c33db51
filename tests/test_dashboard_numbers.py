"""What tables and curves say of their numbers: unit, kind, data, error, count, and why there is none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import loading, page, pairs, tables, training_curves
from dashboard.axes import Axis, groups, titles, why_no_likelihood
from dashboard.figures.curves import curve_figure
from dashboard.figures.likelihoods import MARKS
from pipelines import tracking
from pipelines.epoch_log import VALIDATION_IMAGES
from pipelines.registry_reader import _numbers
from pipelines.store import client
from pipelines.tracking import ModelVersion, RunRecord
from tests.stores import new_store, tiny_model, using
from tests.test_dashboard import healthy, picture, show, words

BINARY, LEVELS = "binary, on if >= 0.5", "17 levels"
EVALUATION = {
    "likelihood": {"validation": {"mean": -7.25, "standard_error": 0.125, "count": 1234}},
    "frechet_distance": {"value": 12.5, "sample_count": 300, "reference_count": 1234},
}
FINAL = {"test/log_likelihood": -7.5, "test/standard_error": 0.25, "test/count": 360,
         "validation/final_log_likelihood": -7.25, "frechet_distance": 12.5}  # fmt: skip


def logged(folder: Path, name: str, treatment: str = BINARY, kind: str = "exact", **final: float) -> str:
    """A run that logged an epoch and these final numbers, and registered its model; its id. No per-image values."""
    tracker = tracking.MlflowTracker("digits", name, system_metrics=False)
    tags = {"dataset": "digits", "dataset_digest": "0123456789abcdef", "data_shape": "1x4x4", "treatment": treatment}
    tracker.set_tags({f"gdm.{key}": value for key, value in {**tags, "likelihood_kind": kind}.items()})
    tracker.log_metrics({"train/loss": 9.0, "validation/log_likelihood": -8.0}, 1)
    tracker.log_image("samples", picture(80), 1)
    tracker.log_json(EVALUATION, "evaluation.json")
    tracker.log_metrics(final, 1)
    tracker.register(tiny_model(folder / name), name, {})
    tracker.finish()
    return tracker.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """{name: run id} of two runs that may be compared, one of another treatment, and three that lack their numbers."""
    folder = tmp_path_factory.mktemp("numbers")
    with using(new_store(folder)):
        levels = {**FINAL, "test/log_likelihood": -60.0, "test/bits_per_dimension": 3.5}
        made = {
            "first": logged(folder, "first", **FINAL),
            "bound": logged(folder, "bound", kind="lower bound", **{**FINAL, "test/log_likelihood": -8.5}),
            "levels": logged(folder, "levels", LEVELS, **levels),
            "without": logged(folder, "without", kind="none"),
            "infinite": logged(folder, "infinite"),
            "lost": logged(folder, "lost", **FINAL),
        }
        client().delete_run(made["lost"])
        yield made


def record_of(name: str) -> RunRecord:
    return next(record for record in loading.runs() if record.name == name)


def version_of(name: str) -> ModelVersion:
    return next(version for version in loading.versions() if version.name == name)


def charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


# --- curves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric, title", [
    ("validation/log_likelihood", "validation log-likelihood<br>nats per image"),
    ("validation/final_log_likelihood", "validation final log-likelihood<br>nats per image"),
    ("train/free_energy_gap", "training free energy gap<br>in the model's own unit"),
    ("images_per_second", "images per second"),
    ("system/cpu_utilization_percentage", "machine: cpu utilization percentage"),
])  # fmt: skip
def test_an_axis_says_split_metric_and_unit_in_words(metric: str, title: str) -> None:
    figure = curve_figure({"a": [(1, 2.0), (2, 3.0)]}, metric)
    assert figure.layout.yaxis.title.text == title
    assert figure.layout.xaxis.title.text == ("measurement" if metric.startswith("system/") else "epoch")


def test_each_kind_of_likelihood_has_a_line_of_its_own_and_its_name_in_the_legend() -> None:
    kinds = {name: kind for name, kind in zip("abcd", MARKS, strict=True)} | {"e": training_curves.UNKNOWN}
    traces = curve_figure({name: [(1, -7.0)] for name in kinds}, "validation/log_likelihood", kinds=kinds).data
    assert [trace.name for trace in traces] == [f"{name}, {kind}" for name, kind in kinds.items()]
    assert len({trace.line.dash for trace in traces}) == len({trace.marker.symbol for trace in traces}) == 5


@pytest.mark.parametrize("kind, of_epochs", [("exact", "estimate"), ("lower bound", "bound with estimated normaliser")])
def test_an_epoch_is_annealed_where_the_evaluation_enumerates(store: dict, kind: str, of_epochs: str) -> None:
    record = record_of("first")
    record = replace(record, tags={**record.tags, "gdm.likelihood_kind": kind})
    assert training_curves.kind_of(record, "validation/log_likelihood") == kind
    energy = replace(record, metrics={**record.metrics, "log_partition/value": 10.0})
    assert training_curves.kind_of(energy, "validation/log_likelihood") == of_epochs
    assert training_curves.kind_of(energy, "validation/final_log_likelihood") == kind
    assert training_curves.kind_of(replace(record, tags={}), "validation/log_likelihood") == training_curves.UNKNOWN


@pytest.mark.parametrize("metric", ["validation/log_likelihood", "validation/final_log_likelihood", "train/loss"])
def test_runs_of_different_pixels_have_a_chart_each(store: dict, metric: str) -> None:
    chosen = [tables.run_name(record_of(name)) for name in ("first", "bound", "levels")]
    app = healthy(show("runs", runs=chosen, metric=metric))
    drawn = [[trace["name"].split()[0] for trace in chart["data"]] for chart in charts(app)]
    assert drawn == [["first", "bound"], ["levels"]]
    said = words(app)
    assert page.plain(f"digits, {BINARY}") in said and page.plain(f"digits, {LEVELS}") in said
    assert ("a loss of its own" in said) == (metric == "train/loss")
    assert ("different kinds are not ranked" in said) == ("log_likelihood" in metric)
    assert (f"at most {VALIDATION_IMAGES:,} validation images" in said) == (metric == "validation/log_likelihood")


def test_compare_draws_the_same_charts(store: dict) -> None:
    app = healthy(show("compare", models=["first/1", "bound/1", "levels/1"], metric="validation/log_likelihood"))
    drawn = [[trace["name"] for trace in chart["data"]] for chart in charts(app)]
    assert drawn[-2:] == [["first/1, exact", "bound/1, lower bound"], ["levels/1, exact"]]


def test_one_chart_says_its_data_set_too(store: dict) -> None:
    assert list(groups({"a": record_of("first")}, "validation/log_likelihood")) == [f"digits, {BINARY}"]
    assert titles([Axis("", "", "", "")]) == {Axis("", "", "", ""): "data set not noted"}


# --- models without a number ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, reason", [
    ("without", "no likelihood"), ("infinite", "infinite or not a number"), ("lost", "was deleted from the store"),
])  # fmt: skip
def test_every_page_gives_the_reason_why_there_is_no_number(store: dict, name: str, reason: str) -> None:
    version = version_of(name)
    assert reason in why_no_likelihood(version)
    assert reason in pairs.why_not(version_of("first"), version)
    assert reason in words(healthy(show("model", model=f"{name}/1")))
    app = healthy(show("compare", second=f"{name}/1"))
    assert reason in next(text for text in words(app).splitlines() if text.startswith("Bars"))
    assert len(app.warning) == 1 and f"{name}/1" in app.warning[0].value and reason in app.warning[0].value


def test_a_model_with_a_number_needs_no_reason(store: dict) -> None:
    assert why_no_likelihood(version_of("first")) is None


def test_a_run_without_per_image_values_has_to_be_trained_again(store: dict) -> None:
    said = words(healthy(show("compare", first="first/1", second="bound/1")))
    assert f"`python -m pipelines rerun {store['first']}`" in said


# --- tables --------------------------------------------------------------------------------------------------------


def test_counts_and_errors_stand_beside_the_numbers_of_a_model(store: dict) -> None:
    said = words(healthy(show("model", model="first/1")))
    assert page.plain("12.50, 300 samples to 1,234 validation images") in said
    assert page.plain("-7.25 ± 0.12 nats per image, 1,234 images") in said
    assert "validation images" in tables.HELP["Fréchet"] and "test" not in tables.HELP["Fréchet"]


def test_models_are_ranked_on_their_own_axis(store: dict) -> None:
    better = replace(version_of("first"), name="grown", test_mean=-1.0)
    grown = replace(better, tags={**better.tags, "gdm.dataset_digest": "fedcba9876543210"})
    levels = replace(better, name="levels", tags={**better.tags, "gdm.treatment": LEVELS}, test_mean=-60.0)
    table = tables.model_table([grown, levels, *(version_of(name) for name in ("without", "bound", "first"))])
    assert list(table["model"]) == ["levels/1", "first/1", "bound/1", "without/1", "grown/1"]
    alike, other = "digits (1x4x4, data 01234567)", "digits (1x4x4, data fedcba98)"
    assert list(table["data set"]) == ["digits", alike, alike, alike, other]


def test_the_csv_of_models_counts_test_images_and_the_page_hides_them(store: dict) -> None:
    table = tables.model_table([version_of("first"), version_of("without")])
    read = pandas.read_csv(io.BytesIO(tables.csv_of(table)), dtype=str)
    assert read["test images"].fillna("").tolist() == ["360", ""]
    assert tables.model_columns(table)["test images"] is None
    assert tables.run_columns(tables.run_table([record_of("first")]))["test images"] is None


@pytest.mark.parametrize("count, shown", [(360.0, 360), (10.5, 10), (float("inf"), None), (float("nan"), None)])
def test_counts_of_runs_from_anywhere_are_whole_or_missing(store: dict, count: float, shown: int | None) -> None:
    record = record_of("first")
    table = tables.run_table([replace(record, metrics={**record.metrics, "test/count": count})])
    assert table["test images"].tolist() == [shown] or (shown is None and table["test images"].isna().all())
    assert _numbers({"test/count": count})["test_count"] == shown


def test_a_note_on_filters_goes_when_they_do(store: dict) -> None:
    name = tables.run_name(record_of("first"))
    test = healthy(show("runs", runs=name, text="levels"))
    assert "left out by these filters" in words(test)
    test.text_input(key="text").set_value("").run()
    assert "left out by these filters" not in words(healthy(test))


def test_the_column_of_kinds_is_as_wide_as_its_longest(store: dict) -> None:
    for kind, width in (("exact", None), (tables.LONGEST_KIND, tables.KIND_WIDTH)):
        models, runs = tables.model_table([version_of("first")]), tables.run_table([record_of("first")])
        shown = [tables.model_columns(models.assign(kind=kind)), tables.run_columns(runs.assign(kind=kind))]
        assert [columns["kind"].get("width") for columns in shown] == [width, width]


def test_runs_carry_the_error_and_bits_per_dimension(store: dict) -> None:
    table = tables.run_table([record_of("levels"), record_of("without")])
    assert table["± s.e."][0] == 0.25 and table["bits/dim"][0] == 3.5 and table["test images"][0] == 360
    assert "bits/dim" not in tables.run_table([record_of("first")])
    assert "standard error (nats per image)" in tables.csv_of(table).decode().splitlines()[0]


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_link_to_runs_that_are_not_offered_says_why(store: dict) -> None:
    first, lost = tables.run_name(record_of("first")), f"lost {store['lost'][:8]}"
    app = healthy(show("runs", runs=[first, lost]))
    assert f"{lost}: not in the store" in app.warning[0].value and "the others are shown" in app.warning[0].value
    assert app.multiselect(key="runs").value == [first]
    app = healthy(show("runs", runs=first, text="levels"))
    assert f"{first}: left out by these filters" in app.warning[0].value
    assert not healthy(show("runs", runs=first)).warning


def test_where_runs_are_cut_off_it_is_said(store: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    first = record_of("first")
    others = (replace(first, run_id=f"{number:032x}", name=f"run{number}") for number in range(1, loading.NEWEST_RUNS))
    many = (first, *others)
    asked = []
    monkeypatch.setattr(tracking, "runs", lambda limit=None, status=None: asked.append(limit) or ())
    loading.refresh()
    loading.runs()
    assert asked == [loading.NEWEST_RUNS]
    monkeypatch.setattr(loading, "runs", lambda: many)
    app = healthy(show("runs", runs="older 01234567", text="first"))
    assert "Only the newest 1,000 runs" in words(app) and "older than the newest 1,000" in app.warning[0].value
    loading.refresh()


def test_sample_grids_have_a_text_for_those_who_do_not_see_them(store: dict) -> None:
    name = tables.run_name(record_of("first"))
    shown = healthy(show("runs", runs=name)).image[0].proto.imgs[0]
    assert shown.alt == f"Samples of {name}, epoch 1"


def test_sessions_share_what_was_last_heard_of_a_run(store: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    trains = (record_of("first"),)
    monkeypatch.setattr(loading, "running", lambda: trains)
    monkeypatch.setattr(tracking, "last_sign_of_life", lambda record: reads.append(record) or datetime.now(UTC))
    loading._last_sign_of_life.clear()
    for _ in range(2):
        assert "Training now" in words(healthy(show("runs")))
    assert len(reads) == 1
