"""Compare, Runs and Model headless, with no, few and broken models; and the laws of what they show."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard import live, loading, page, pairs, run_pictures, tables
from dashboard.axes import Axis, by_axis, groups, titles
from dashboard.choices import best_of_each, select
from dashboard.figures.differences import paired_difference
from dashboard.figures.likelihoods import INTERVAL, MARKS, likelihood_figure
from dashboard.run_parameters import differing, parameter_table
from dashboard.views import model, runs
from gdm_core.tensor_files import write_tensors
from pipelines import tracking
from pipelines.store import shown_address, ui_address
from pipelines.tracking import model_link, run_link
from tests.stores import new_store, tiny_model, using

ROOT = Path(__file__).resolve().parents[1]
VIEWS = ("compare", "runs", "model")
TREATMENT = "binary, on if >= 0.5"
FIRST, SECOND = "digits-first", "digits-second"
rng = numpy.random.default_rng(0)
VALUES = {FIRST: rng.normal(-7.0, 1.0, 40), SECOND: rng.normal(-8.0, 1.0, 40)}


def picture(shade: int) -> Image.Image:
    return Image.fromarray(numpy.full((9, 9), shade, dtype=numpy.uint8))


def logged_run(folder: Path, name: str, kind: str = "exact", seed: int = 0, **extra: float) -> tuple[str, str]:
    """Log a run with curves, pictures and per-image values, and register its tiny model under a name."""
    tracker = tracking.MlflowTracker("digits", name, system_metrics=False)
    tracker.log_parameters({"model": "independent_bernoulli", "seed": seed, "epochs": 3})
    tags = {"gdm.likelihood_kind": kind, "gdm.dataset": "digits", "gdm.dataset_digest": "0123456789abcdef"}
    tracker.set_tags({**tags, "gdm.treatment": TREATMENT, "gdm.data_shape": "1x4x4"})
    for epoch in (1, 2, 3):
        tracker.log_metrics({"train/loss": 9.0 - epoch, "validation/log_likelihood": epoch - 9.0}, epoch)
        tracker.log_image("samples", picture(80 * epoch), epoch)
    values = VALUES.get(name)
    if values is not None and kind != "none":
        write_tensors(folder / "likelihood.safetensors", {"test": torch.tensor(values)})
        tracker.log_file(folder / "likelihood.safetensors")
        error = values.std(ddof=1) / numpy.sqrt(len(values))
        tracker.log_metrics(
            {"test/log_likelihood": values.mean(), "test/standard_error": error, "test/count": len(values)}, 3
        )
    tracker.log_metrics({"parameters": 16, "training_seconds": 1.5, "sampling_seconds": 0.1, "epochs": 3, **extra}, 3)
    version = tracker.register(tiny_model(folder / "model", seed), name, {})
    tracker.finish()
    return tracker.run_id, version


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with two models that have a likelihood, one that has none, a failed run and one that trains."""
    folder = tmp_path_factory.mktemp("filled")
    with using(new_store(folder)):
        for index, name in enumerate((FIRST, SECOND, "digits-none")):
            (folder / name).mkdir()
            logged_run(folder / name, name, "none" if name == "digits-none" else "exact", index)
        failed = tracking.MlflowTracker("digits", "broken", system_metrics=False)
        (folder / "traceback.txt").write_text("Traceback:\n  File x\nDivergenceError: loss became NaN <b>now</b>\n")
        failed.log_file(folder / "traceback.txt")
        failed.finish("FAILED")
        trains = tracking.MlflowTracker("digits", "trains", system_metrics=False)
        trains.log_parameters({"epochs": 4})
        trains.set_tags({"gdm.model": "nade", "gdm.dataset": "digits"})
        trains.log_metrics({"train/loss": 20.5}, 1)
        yield folder


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    with using(new_store(tmp_path)):
        yield tmp_path


def show(view: str, **query: str | list[str]) -> AppTest:
    """One page, headless, with an address."""
    script = f"from dashboard import page\npage.show(next(e for e in page.PAGES if e.name == {view!r}))"
    app = AppTest.from_string(script, default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def words(app: AppTest) -> str:
    kinds = ("markdown", "info", "warning", "error", "caption")
    return "\n".join(str(part.value) for kind in kinds for part in app.get(kind))


def healthy(app: AppTest) -> AppTest:
    assert not app.exception and not app.error, [part.value for part in [*app.exception, *app.error]]
    return app


# --- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_without_models_a_page_says_how_to_make_one(view: str, empty: Path) -> None:
    app = healthy(show(view))
    assert "Train one" in words(app) and "pipelines train" in app.code[0].value


@pytest.mark.parametrize("view", VIEWS)
def test_without_a_store_a_page_works_and_makes_none(view: str, tmp_path: Path) -> None:
    with using(f"sqlite:///{tmp_path / 'none.db'}"):
        healthy(show(view))
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("view", VIEWS)
def test_a_page_shows_what_there_is(view: str, filled: Path) -> None:
    assert healthy(show(view)).title[0].value == view.capitalize()


@pytest.mark.parametrize("view", VIEWS)
def test_a_damaged_store_is_one_sentence(view: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with using(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        app = show(view)
    assert not app.exception and app.error and all("cannot be read" in error.value for error in app.error)


@pytest.mark.parametrize("view", VIEWS)
def test_a_server_that_is_down_is_one_sentence(view: str) -> None:
    with using("http://127.0.0.1:9"):
        app = show(view)
    assert not app.exception and len(app.error) == 1 and "does not answer" in app.error[0].value


@pytest.mark.parametrize("view", VIEWS)
def test_garbage_in_the_address_is_dropped(view: str, filled: Path) -> None:
    garbage = {key: "<script>'\"](x)" for key in ("models", "model", "first", "second", "metric", "versions", "dataset",
               "family", "runs", "status", "differing", "epoch", "nonsense")}  # fmt: skip
    healthy(show(view, **garbage))


def test_the_whole_frame_runs(filled: Path) -> None:
    app = healthy(AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60).run())
    assert app.title[0].value == "Compare" and page.plain(str(filled)) in app.sidebar.caption[0].value


def test_compare_lists_every_model_and_what_trains(filled: Path) -> None:
    app = healthy(show("compare"))
    table = app.dataframe[0].value
    assert list(table["model"]) == [f"{FIRST}/1", f"{SECOND}/1", "digits-none/1"]  # best first, without a number last
    assert table["log-likelihood"][0] == pytest.approx(VALUES[FIRST].mean())
    assert "Training now" in words(app) and "Without a number: digits-none/1" in words(app)


def test_compare_filters(filled: Path) -> None:
    healthy(show("compare", dataset="digits", family="autoregressive", versions="All versions"))
    app = healthy(show("compare", dataset="digits"))
    assert app.multiselect(key="dataset").value == ["digits"]


def test_the_paired_difference_on_the_page_is_numpys(filled: Path) -> None:
    app = healthy(show("compare", first=f"{SECOND}/1", second=f"{FIRST}/1"))
    values = VALUES[SECOND] - VALUES[FIRST]
    expected = f"{values.mean():+.3f} ± {values.std(ddof=1) / numpy.sqrt(40):.3f}"
    assert app.metric[0].value == expected


def test_one_model_cannot_be_paired_with_itself(filled: Path) -> None:
    app = healthy(show("compare", first=f"{FIRST}/1", second=f"{FIRST}/1"))
    assert "two different models" in words(app) and not app.metric


def test_runs_are_found_by_words_and_failures_say_why(filled: Path) -> None:
    broken = next(record for record in loading.runs() if record.status == "FAILED")
    app = show("runs", text="BROKEN", runs=tables.run_name(broken))
    assert len(app.dataframe[0].value) == 1
    assert [error.value.partition("failed: ")[2] for error in app.error] == [
        page.plain("DivergenceError: loss became NaN <b>now</b>")
    ]


def test_one_slider_moves_the_grids_of_all_runs(filled: Path) -> None:
    names = [tables.run_name(record) for record in loading.runs() if record.name in (FIRST, SECOND)]
    app = healthy(show("runs", runs=names, epoch="2"))
    assert app.select_slider(key="epoch").value == 2
    captions = [image.caption for shown in app.image for image in shown.proto.imgs]
    assert len(captions) == 2 and all(caption.endswith("epoch 2") for caption in captions)


def test_parameters_that_differ_are_shown(filled: Path) -> None:
    names = [tables.run_name(record) for record in loading.runs() if record.name in (FIRST, SECOND)]
    shown = healthy(show("runs", runs=names)).dataframe[-1].value
    assert list(shown.index) == ["seed"]


def test_the_model_page_describes_and_offers_files(filled: Path) -> None:
    app = healthy(show("model", model=f"{FIRST}/1"))
    assert app.header[0].value == page.plain(f"{FIRST}/1")
    assert "gives the exact log-likelihood of an image" in words(app)
    assert "independent\\_bernoulli · Laplace" in words(app)
    assert [button.label.split()[0] for button in app.get("download_button")][:2] == ["model.json", "model.safetensors"]


def test_a_model_without_likelihood_says_so(filled: Path) -> None:
    app = healthy(show("model", model="digits-none/1"))
    assert "no likelihood" in words(app) and not app.metric


def test_a_link_to_a_model_that_is_gone_says_so(filled: Path) -> None:
    app = healthy(show("model", model="digits-gone/7"))
    assert "digits-gone/7: not among the registered versions" in app.warning[0].value and app.header


def test_a_link_to_several_models_names_those_that_are_gone(filled: Path) -> None:
    app = healthy(show("compare", models=[f"{FIRST}/1", "digits-gone/7"], second="digits-lost/2"))
    said = [warning.value for warning in app.warning]
    assert len(said) == 2 and "digits-lost/2" in said[0]
    assert "digits-gone/7" in said[1] and FIRST not in said[1] and "the others are shown" in said[1]
    assert app.multiselect(key="models").value == [f"{FIRST}/1"]


def test_promotion_and_roll_back_ask_first(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        for seed in (0, 1):
            (tmp_path / str(seed)).mkdir()
            logged_run(tmp_path / str(seed), FIRST, seed=seed)
        tracking.set_alias(FIRST, "champion", "1")
        app = healthy(show("model", model=f"{FIRST}/2"))
        assert tracking.get_version(f"models:/{FIRST}@champion").version == "1"  # looking changes nothing
        healthy(app.button(key="confirm Make version 2 champion").click().run())
        assert tracking.get_version(f"models:/{FIRST}@champion").version == "2"
        healthy(app.button(key="confirm Roll back to version 1").click().run())
        assert tracking.get_version(f"models:/{FIRST}@champion").version == "1"


def test_a_broken_file_spoils_only_its_own_part(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        logged_run(tmp_path, FIRST)
        loading.version_files(f"models:/{FIRST}/1")["model.json"].write_text("{ no JSON")
        app = show("model")
    assert not app.exception and len(app.error) == 1 and "model.json" in app.error[0].value and app.metric


# --- loading and the boundary --------------------------------------------------------------------------------------


def test_a_model_is_loaded_once_for_all_its_addresses(filled: Path) -> None:
    loaded = loading.model(f"models:/{FIRST}/1")
    assert loading.model(f"models:/{FIRST}@latest") is loaded
    assert loading.model(f"models:/{SECOND}/1") is not loaded and not loaded.model.training


def test_an_unexpected_error_shows_no_traceback_and_no_secret() -> None:
    def fails() -> None:
        from dashboard.page import boundary

        with boundary():
            raise KeyError("secret")

    app = AppTest.from_function(fails, default_timeout=60).run()
    assert not app.exception and "KeyError" in app.error[0].value and "secret" not in app.error[0].value


def test_only_our_own_value_errors_are_shown_as_they_are() -> None:
    assert "log" in page.sentence(caught(lambda: numpy.zeros(2) + numpy.zeros(3)))
    assert page.sentence(caught(lambda: paired_difference(numpy.zeros(2), numpy.zeros(3)))).startswith("A paired")


def caught(function: Callable[[], object]) -> Exception:
    with pytest.raises(ValueError) as info:
        function()
    return info.value


def test_names_cannot_become_markup() -> None:
    shown = page.plain("<b>[x](javascript:1)</b> :red[y] $z$ `c` a_b")
    assert all(f"\\{character}" in shown for character in "<[(:$`_") and "](" not in shown


@pytest.mark.parametrize("who", ["ann:secret@", "token@", ""])
def test_who_reads_the_store_is_not_shown(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor written into tables and their downloads, which carry these links."""
    assert shown_address(f"http://{who}host:5000/x@y") == "http://host:5000/x@y"
    assert shown_address("sqlite:////home/ann@example.org/m.db") == "sqlite:////home/ann@example.org/m.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{who}host:5000/x/")
    monkeypatch.delenv("GDM_MLFLOW_UI", raising=False)
    assert model_link("digits-nade", "2") == "http://host:5000/x/#/models/digits-nade/versions/2"
    assert ui_address() == "http://host:5000/x"
    monkeypatch.setenv("GDM_MLFLOW_UI", f"https://{who}other")
    assert run_link("1", "abc") == "https://other/#/experiments/1/runs/abc"


def test_a_downloaded_number_keeps_its_unit(filled: Path) -> None:
    header = tables.csv_of(tables.model_table(loading.versions())).decode().splitlines()[0]
    assert "log-likelihood (nats per image)" in header and "training (s)" in header


def test_text_that_looks_like_a_formula_is_quoted_in_csv() -> None:
    import pandas

    table = pandas.DataFrame({"name": ["=1+1", "nade"], "value": [-1.5, 2.0], "aliases": [["a", "b"], []]})
    assert tables.csv_of(table).decode().splitlines()[1:] == ["'=1+1,-1.5,\"a, b\"", "nade,2.0,"]


# --- what is shown -------------------------------------------------------------------------------------------------


@pytest.fixture
def version(filled: Path) -> tracking.ModelVersion:
    return next(version for version in loading.versions() if version.name == FIRST)


def test_kinds_differ_in_mark_and_colour() -> None:
    assert set(MARKS) == {"exact", "lower bound", "estimate", "bound with estimated normaliser"}
    assert len({mark.symbol for mark in MARKS.values()}) == len({mark.colour for mark in MARKS.values()}) == 4


def test_the_figure_draws_each_kind_with_its_mark_and_the_interval_apart(version: tracking.ModelVersion) -> None:
    log_z = tracking.LogPartition(10.0, 9.0, 10.5)
    others = [replace(version, likelihood_kind=kind) for kind in MARKS if kind != "estimate"]
    estimate = replace(version, likelihood_kind="estimate", log_partition=log_z, test_mean=-8.0)
    figure = likelihood_figure([*others, estimate], ["a", "b", "d", "c"])
    traces = {trace.name: trace for trace in figure.data}
    assert {traces[kind].marker.symbol for kind in MARKS} == {mark.symbol for mark in MARKS.values()}
    assert list(traces[INTERVAL].x) == [-8.5, -7.0]  # a larger log Z makes every image less likely
    assert traces["exact"].error_x.array[0] == pytest.approx(1.96 * version.test_standard_error)


def other(version: tracking.ModelVersion, **tags: str) -> tracking.ModelVersion:
    return replace(version, tags={**version.tags, **{f"gdm.{key}": value for key, value in tags.items()}})


@pytest.mark.parametrize("fact", [{"treatment": "17 levels"}, {"dataset_digest": "f" * 16}, {"data_shape": "3x4x4"}])
def test_what_cannot_be_compared_never_shares_an_axis(version: tracking.ModelVersion, fact: dict[str, str]) -> None:
    versions = [version, other(version, **fact)]
    axes = by_axis(versions)
    assert [len(group) for group in axes.values()] == [1, 1] and len(set(titles(axes).values())) == 2
    with pytest.raises(ValueError, match="cannot share an axis"):
        likelihood_figure(versions, ["a", "b"])
    named = dict(zip("ab", versions, strict=True))
    for metric in ("validation/log_likelihood", "validation/final_log_likelihood", "train/loss"):
        assert list(groups(named, metric).values()) == [["a"], ["b"]]
    assert groups(named, "images_per_second") == {"": ["a", "b"]}


def test_titles_are_short_where_they_can_be() -> None:
    one, two = Axis("digits", "aaaa", "1x8x8", "17 levels"), Axis("mnist", "bbbb", "1x8x8", "17 levels")
    assert titles([one, two]) == {one: "digits, 17 levels", two: "mnist, 17 levels"}


def test_paired_difference_is_numpys_and_beats_the_unpaired_error() -> None:
    shared = rng.normal(0, 5, 300)
    first, second = shared + rng.normal(0.5, 0.1, 300), shared + rng.normal(0, 0.1, 300)
    difference = paired_difference(first, second)
    assert difference.mean == pytest.approx(numpy.mean(first - second))
    assert difference.standard_error == pytest.approx(numpy.std(first - second, ddof=1) / numpy.sqrt(300))
    assert difference.standard_error < 0.1 * numpy.std(first) / numpy.sqrt(300)


@pytest.mark.parametrize("change, reason", [
    ({"treatment": "17 levels"}, "pixel treatments"), ({"dataset_digest": "f" * 16}, "data sets"),
    ({"test_count": 39}, "numbers of test images"), ({"data_shape": (3, 4, 4)}, "image shapes"),
    ({"test_mean": None}, "no test log-likelihood"),
])  # fmt: skip
def test_pairs_need_the_same_images(version: tracking.ModelVersion, change: dict, reason: str) -> None:
    second = next(other for other in loading.versions() if other.name == SECOND)
    assert pairs.why_not(version, second) is None
    assert reason in pairs.why_not(version, replace(second, **change))


def test_the_words_of_a_difference_follow_its_size_and_kinds(version: tracking.ModelVersion) -> None:
    second = replace(version, name=SECOND, likelihood_kind="lower bound")
    worse = VALUES[FIRST] - 1 + rng.normal(0, 0.1, 40)
    clear = pairs.in_words(paired_difference(VALUES[FIRST], worse), version, second)
    assert clear.startswith(f"{FIRST}/1 has the higher number") and "does not prove" in clear and "lower bound" in clear
    turned = pairs.in_words(paired_difference(worse, VALUES[FIRST]), second, version)
    assert turned.startswith(f"{FIRST}/1 has the higher number") and "does not prove" in turned
    bound_above = pairs.in_words(paired_difference(VALUES[FIRST], worse), second, version)
    assert bound_above.startswith(f"{SECOND}/1 has the higher number") and "so it is the better model" in bound_above
    noise = rng.normal(0, 1, 20)
    symmetric = paired_difference(numpy.concatenate([noise, -noise]), numpy.zeros(40))
    assert "cannot be told apart" in pairs.in_words(symmetric, version, second)


def test_best_of_each_prefers_the_champion(version: tracking.ModelVersion) -> None:
    newer = replace(version, version="2", aliases=("latest",))
    champion = replace(version, aliases=("champion",))
    assert best_of_each([newer, champion]) == [champion] and select([newer, champion], "Latest") == [newer]
    assert select([newer, champion], "All versions") == [newer, champion]


def test_the_nearest_stored_picture_is_shown_sharp() -> None:
    assert run_pictures.nearest_step([1, 5, 9], 6) == 5 and run_pictures.nearest_step([1, 5], 3) == 1
    small = Image.fromarray(numpy.array([[0, 255], [255, 0]], dtype=numpy.uint8))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    large = numpy.asarray(Image.open(io.BytesIO(run_pictures.enlarged(buffer.getvalue(), 40))))
    assert large.shape == (40, 40) and set(numpy.unique(large)) == {0, 255} and large[:20, :20].max() == 0


def test_differing_parameters(filled: Path) -> None:
    records = [record for record in loading.runs() if record.name in (FIRST, SECOND)]
    table = parameter_table(records)
    assert list(table.index[differing(table)]) == ["seed"]


def test_progress_is_a_fraction_whatever_was_asked(filled: Path) -> None:
    record = next(record for record in loading.running() if record.name == "trains")
    assert live.progress_of(record, 1) == 0.25 and live.progress_of(record, 9) == 1.0
    assert live.progress_of(replace(record, params={}), 1) == 0.0


def test_a_run_that_fell_silent_is_offered_for_resuming(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = next(record for record in loading.running() if record.name == "trains")
    heard = loading.last_sign_of_life(record)
    assert record.start <= heard <= datetime.now(UTC)
    monkeypatch.setattr(loading, "last_sign_of_life", lambda _: heard - timedelta(minutes=30))
    assert f"--resume {record.run_id}" in words(healthy(show("compare")))


def test_words_all_have_to_match(filled: Path) -> None:
    record = next(record for record in loading.runs() if record.name == FIRST)
    assert runs.matches(record, "first seed=0") and not runs.matches(record, "first seed=7")


def test_formulas_of_a_description_are_kept_apart() -> None:
    text = "Idea of\ntwo lines.\n\n    p(x) = 1\n      + 2\nwith `name_x` after."
    parts = [(False, "Idea of two lines."), (True, "p(x) = 1\n  + 2"), (False, "with `name_x` after.")]
    assert model.paragraphs(text) == parts
    assert model.prose("a_b `c_d`") == "a\\_b `c_d`"


def test_figures_know_nothing_of_streamlit() -> None:
    for path in (ROOT / "dashboard" / "figures").glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        names = [name for node in tree if isinstance(node, (ast.Import, ast.ImportFrom))
                 for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]]  # fmt: skip
        assert not any(name.partition(".")[0] == "streamlit" for name in names), path
