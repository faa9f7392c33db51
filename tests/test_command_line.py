"""The command line: what can be asked, what is refused at once, and what a run leaves behind."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from gdm_core import build_model, likelihood
from gdm_core.data import load_dataset
from pipelines import tracking
from pipelines.cli import app, main
from pipelines.configuration import RunConfiguration, resolve
from pipelines.run_reader import read_file, runs, sample_grids
from pipelines.training_run import start_run

TINY = ["hidden_units=8", "--epochs", "2", "--threads", "1", "--device", "cpu", "--batch-size", "400"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")
        yield


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def trained(store) -> str:
    """The id of the first run, a NADE that has seen little."""
    call("train", "nade", *TINY)
    return runs()[0].run_id


def test_a_run_logs_all_that_is_needed_to_read_and_to_repeat_it(trained: str) -> None:
    run = tracking.get_run(trained)
    assert run.status == "FINISHED" and run.experiment == "digits"
    expected = {"model": "nade", "dataset": "digits", "seed": "0", "threads": "1", "model.hidden_units": "8"}
    assert expected.items() <= run.params.items()
    assert run.tags["gdm.likelihood_kind"] == "exact" and run.tags["gdm.treatment"] == "binary, on if >= 0.5"
    assert {"train/loss", "validation/log_likelihood", "images_per_second", "test/standard_error"} <= run.metrics.keys()
    assert any(name.startswith("system/") for name in run.metrics)
    assert list(sample_grids(trained)["samples"]) == [1, 2]
    record = json.loads(read_file(trained, "evaluation.json"))["likelihood"]["test"]
    assert record["kind"] == "exact" and record["unit"] == "nats per image" and record["count"] == 300
    assert "torch" in json.loads(read_file(trained, "requirements.json"))["packages"]
    assert resolve("nade", arguments={"hidden_units": 8}, epochs=2, threads=1, device="cpu", batch_size=400)[
        0
    ] == RunConfiguration.from_json(read_file(trained, "configuration.json").decode())


def test_the_logged_likelihood_is_that_of_the_registered_model(trained: str) -> None:
    stored = tracking.load_registered("models:/digits-nade@champion")
    test = load_dataset("digits").splits["test"].images
    mean = likelihood(stored.model, stored.treatment(test)).mean
    assert mean == pytest.approx(tracking.get_run(trained).metrics["test/log_likelihood"], abs=1e-5)
    shown = call("evaluate", "digits-nade", "--split", "test", "--json")
    assert json.loads(shown.stdout)["log_likelihood"] == pytest.approx(mean, abs=1e-5)


def test_a_better_version_becomes_champion_and_a_worse_one_does_not(trained: str) -> None:
    better = call("train", "nade", *TINY, "--learning-rate", "0.03", "--epochs", "6")
    assert "champion: yes" in better.stdout and "against champion 1" in better.stdout
    worse = call("train", "nade", *TINY)
    assert "champion: no" in worse.stdout
    aliases = {v.version: v.aliases for v in tracking.list_versions() if v.name == "digits-nade"}
    assert aliases == {"1": (), "2": ("champion",), "3": ("latest",)}
    call("promote", "digits-nade", "1")
    assert tracking.resolve("models:/digits-nade@champion") == ("digits-nade", "1")
    assert "digits-nade" in call("list").stdout
    other = call("train", "nade", *TINY, "--treatment", "dynamic")
    assert "champion: no" in other.stdout and "pixel treatment differ" in other.stdout


def test_what_a_constructor_refuses_makes_no_run(store) -> None:
    before = len(runs())
    for wrong in (["made", "orderings=0"], ["gaussian_rbm", "hidden_units=0"], ["vae", "latent_units=0"]):
        with pytest.raises(ValueError, match=wrong[1].split("=")[0]):
            call("train", *wrong)
    assert len(runs()) == before


def test_calibration_images_are_for_p_values_alone(trained: str) -> None:
    with pytest.raises(ValueError, match="validation or test"):
        call("evaluate", "digits-nade", "--split", "calibration")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_marked_and_says_how_to_go_on(sent: int, monkeypatch: pytest.MonkeyPatch, store) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("pipelines.progress_bar.ProgressBar.__call__", lambda *_: os.kill(os.getpid(), sent))
    try:
        stopped = call("train", "nade", *TINY)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    killed = runs()[0]
    assert f"`python -m pipelines train --resume {killed.run_id}` goes on" in stopped.output
    assert stopped.exit_code == 130 and killed.status == "KILLED"


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (["nade"], "model"),
        (["nade", "hidden_units=8"], "model, arguments"),
        (["--epochs", "10"], "--epochs"),
        (["--seed", "0", "--batch-size", "5"], "--seed, --batch-size"),
    ],
)
def test_what_is_asked_for_beside_resume_is_refused_not_ignored(beside: list[str], named: str, store) -> None:
    with pytest.raises(ValueError, match="--resume goes on") as refused:
        call("train", *beside, "--resume", "0" * 32)
    assert f"leave out {named}," in str(refused.value)
    with pytest.raises(ValueError, match="nothing to resume"):
        call("train", "--resume", "0" * 32, "--checkpoint-seconds", "5")


def test_a_run_is_repeated_on_its_own_images_and_on_a_device_that_is_here(
    trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(runs())
    again = call("rerun", trained, "--device", "cpu")
    assert "registered digits-nade" in again.stdout and len(runs()) == before + 1
    assert runs()[0].params == tracking.get_run(trained).params
    assert runs()[0].tags["gdm.weights_digest"] == tracking.get_run(trained).tags["gdm.weights_digest"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no GPU here"):
        call("rerun", trained, "--device", "cuda")
    on_gpu = RunConfiguration.from_json(read_file(trained, "configuration.json").decode())
    on_gpu.training["device"] = "cuda"
    with pytest.raises(ValueError, match="rerun RUN_ID --device cpu"):
        start_run(on_gpu)
    run = tracking.get_run(trained)
    monkeypatch.setattr("pipelines.run_reader.get_run", lambda _: replace(run, tags={"gdm.dataset_digest": "other"}))
    with pytest.raises(ValueError, match="are not those of the record"):
        call("rerun", trained)
    assert len(runs()) == before + 1


def test_a_configuration_of_another_time_is_refused_in_a_sentence(trained: str) -> None:
    text = read_file(trained, "configuration.json").decode().replace('"epochs"', '"rounds"')
    with pytest.raises(ValueError, match="not the configuration of a run"):
        RunConfiguration.from_json(text)


@pytest.mark.parametrize("model", ["dcgan", "deep_energy"])
def test_a_model_without_likelihood_waits_for_a_hand(model: str, store) -> None:
    shown = call("train", model, "channels=4", "--epochs", "1", "--threads", "1", "--batch-size", "600")
    assert "promote it by hand" in shown.stdout
    assert "champion" not in tracking.get_version(f"models:/digits-{model}@latest").aliases


def test_a_run_that_fails_says_so_and_keeps_its_traceback(store) -> None:
    with pytest.raises(RuntimeError, match="smaller learning rate"):
        call("train", "nade", *TINY, "--learning-rate", "1e30")
    failed = runs()[0]
    assert failed.status == "FAILED" and b"DivergenceError" in read_file(failed.run_id, "traceback.txt")


def test_an_offline_run_is_taken_in_once_as_if_logged_live(tmp_path: Path, store) -> None:
    call("train", "vae", "hidden_units=8", "--epochs", "1", "--threads", "1", "--offline", str(tmp_path / "runs"))
    first = call("import", str(tmp_path / "runs"))
    assert "registered digits-vae version 1" in first.stdout
    assert "was imported before" in call("import", str(tmp_path / "runs")).stdout
    (version,) = [v for v in tracking.list_versions() if v.name == "digits-vae"]
    assert version.aliases == ("champion", "latest") and version.likelihood_kind == "lower bound"
    assert tracking.load_model("models:/digits-vae@champion").sample(2).shape == (2, 1, 8, 8)


def test_a_folder_of_images_trains(tmp_path: Path, store) -> None:
    for index in range(40):
        Image.new("L", (12, 10), index * 6).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    shown = call("train", "independent_bernoulli", "--dataset", f"folder:{tmp_path}", "--size", "8", "--threads", "1")
    assert "broken.png" in shown.output and "registered folder-" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nada"], "unknown model 'nada'; known models are"),
        (["nade", "units=3"], "has no argument 'units'; known are hidden_units"),
        (["nade", "hidden_units=many"], "hidden_units='many' is not a whole number"),
        (["nade", "hidden_units"], "is no key=value"),
        (["nade", "--dataset", "mnits"], "unknown data set 'mnits'; known are digits"),
        (["nade", "--treatment", "levels"], "choose --treatment threshold or dynamic"),
        (["nade", "--treatment", "grey"], "unknown pixel treatment 'grey'"),
        (["nade", "--epochs", "0"], "epochs must be at least 1"),
        (["nade", "--device", "tpu"], "device must be one of auto, cpu, cuda"),
        (["nade", "--precision", "int4"], "precision must be one of"),
        (["nade", "--dataset", "folder:/nowhere/at/all"], "/nowhere/at/all"),
        (["--resume", "0" * 32], "nothing to resume"),
        ([], "name a model"),
    ],
)
def test_what_is_wrong_fails_at_once_in_one_sentence(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store
) -> None:
    monkeypatch.setattr("sys.argv", ["pipelines", "train", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    assert stop.value.code == 1 and words in shown.err
    assert shown.err.count("\n") == 1 and "Traceback" not in shown.err


def test_levels_and_real_pixels_reach_the_model() -> None:
    grey, data = resolve("pixel_cnn", arguments={"pixels": "levels", "levels": 4})
    assert grey.treatment == {"name": "levels", "stored_levels": 17, "levels": 4}
    real, _ = resolve("vae", treatment="real")
    model = build_model("vae", data.data_shape, **real.arguments)
    assert (model.pixels, model.levels) == ("real", 17)


def test_a_model_of_few_levels_learns_colour_images(
    store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits per dimension are printed and logged, of the fewer levels; the sample grid has colours."""
    (tmp_path / "CIFAR10-subset").mkdir()
    draw = np.random.RandomState(0).randint
    arrays = {"class_names": ["dark", "bright"]}
    for part, count in (("train", 200), ("test", 12)):
        arrays[f"{part}_images"] = draw(256, size=(count, 8, 8, 3)).astype(np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 2
    np.savez(tmp_path / "CIFAR10-subset" / "cifar10_subset.npz", **arrays)
    monkeypatch.setenv("GDM_DATA", str(tmp_path))
    small = ["channels=3", "blocks=0", "kernel_size=3", "pixels=levels", "levels=4"]
    fast = ["--epochs", "1", "--threads", "1", "--device", "cpu", "--batch-size", "80"]
    done = call("train", "pixel_cnn", "--dataset", "cifar10_subset", *fast, *small)
    run = next(run for run in runs() if run.experiment == "cifar10_subset")
    bits = run.metrics["test/bits_per_dimension"]
    assert bits == pytest.approx(-run.metrics["test/log_likelihood"] / 192 / math.log(2))
    assert 1.9 < bits < 3  # noise of four levels costs 2
    assert f"{bits:.3f} bits per dimension, 4 levels" in done.stdout
    assert run.tags["gdm.data_shape"] == "3x8x8" and run.tags["gdm.treatment"] == "4 levels"
    with Image.open(io.BytesIO(read_file(run.run_id, sample_grids(run.run_id)["samples"][1]))) as grid:
        assert grid.mode == "RGB" and (np.asarray(grid).std(2) > 50).any()  # red, green and blue are not the same
