"""Images of one row are signals: drawn as curves, scored, trained on and shown like any other image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dashboard.page import PAGES
from gdm_core.data import grid, load_dataset
from gdm_core.data.corruptions import pasted_block
from gdm_core.data.examples import examples
from gdm_core.data.pictures import CURVE_HEIGHT, curves, is_signal, square_columns
from pipelines import tracking
from pipelines.cli import app
from pipelines.configuration import resolve
from pipelines.run_reader import runs, sample_grids
from tests.stores import new_store, using
from tests.test_dashboard_live import page

FEW = {"train": 40, "validation": 10, "calibration": 10, "test": 10}


def test_a_curve_has_each_value_at_its_height_and_no_gaps() -> None:
    signals = torch.tensor([0.0, 1.0, 1.0, 0.5, 0.25]).view(1, 1, 1, 5)
    image = curves(signals, height=5)
    assert image.shape == (1, 1, 5, 5)
    assert image[0, 0].int().tolist() == [
        [0, 1, 1, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 1],
        [0, 1, 0, 0, 1],
        [1, 1, 0, 0, 0],
    ]
    with pytest.raises(ValueError, match="NaN"):
        curves(signals * torch.nan)


def test_grids_draw_signals_as_curves_and_images_as_they_are() -> None:
    signals, images = torch.rand(3, 1, 1, 32), torch.rand(3, 1, 2, 32)
    assert is_signal(signals) and not is_signal(images) and not is_signal(torch.rand(2, 3, 1, 8))
    assert grid(signals, columns=1).size == (32, 3 * CURVE_HEIGHT + 2)
    assert np.array_equal(np.asarray(grid(signals[:1])), (curves(signals[:1])[0, 0] * 255).byte().numpy())
    assert grid(images, columns=1).size == (32, 3 * 2 + 2)


@pytest.mark.parametrize(("shape", "columns"), [((36, 1, 8, 8), 6), ((5, 1, 8, 8), 3), ((36, 1, 1, 256), 3)])
def test_a_grid_is_about_square(shape: tuple, columns: int) -> None:
    assert square_columns(torch.zeros(shape)) == columns


def test_a_block_in_a_signal_is_a_quarter_of_it() -> None:
    stored = torch.randint(256, (6, 1, 1, 256), dtype=torch.uint8)
    images, masks = pasted_block(stored, 256, torch.Generator().manual_seed(0))
    assert (masks.sum((1, 2, 3)) == 64).all() and torch.equal(images[~masks], stored[~masks])
    assert all(len(image[mask].unique()) == 1 for image, mask in zip(images, masks, strict=True))
    assert len(examples(load_dataset("harmonics")).odd) == 6


@pytest.mark.parametrize(
    ("model", "arguments", "treatment", "label"),
    [
        ("wavenet", {}, None, "levels"),
        ("wavenet", {}, "threshold", "threshold"),
        ("wavenet", {"pixels": "binary"}, None, "threshold"),
        ("nade", {}, None, "threshold"),
        ("vae", {}, None, "threshold"),
    ],
)
def test_sounds_are_levels_to_those_who_can_take_them(model: str, arguments: dict, treatment: str, label: str) -> None:
    """What the data is meant as decides where nobody says otherwise and the model has that kind of pixels."""
    configuration, data = resolve(model, "harmonics", arguments=arguments, treatment=treatment)
    assert configuration.treatment["name"] == label and data.data_shape == (1, 1, 256)
    assert resolve("wavenet", "digits")[0].treatment["name"] == "threshold"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a tiny WaveNet that was trained on a few sounds by the command line."""
    folder = tmp_path_factory.mktemp("signals")
    with using(new_store(folder)), pytest.MonkeyPatch.context() as patch:
        patch.setattr("gdm_core.data.harmonics.SIZES", FEW)
        arguments = ["channels=4", "skip_channels=4", "layers=3", "--epochs", "1", "--threads", "1", "--device", "cpu"]
        done = CliRunner().invoke(app, ["train", "wavenet", "--dataset", "harmonics", *arguments])
        assert done.exit_code == 0, done.output
        assert "256 levels" in done.stdout and "registered harmonics-wavenet version 1" in done.stdout
        yield folder


def test_a_run_on_sounds_has_bits_and_a_grid_of_curves(trained: Path) -> None:
    run = runs()[0]
    assert run.metrics["test/bits_per_dimension"] == pytest.approx(
        -run.metrics["test/log_likelihood"] / 256 / np.log(2), rel=1e-4
    )
    assert list(sample_grids(run.run_id)["samples"]) == [1]
    sounds = tracking.load_model("models:/harmonics-wavenet@champion").sample(2)
    assert sounds.shape == (2, 1, 1, 256) and sounds.unique().numel() > 20


@pytest.mark.parametrize("name", [entry.name for entry in PAGES])
def test_every_page_shows_a_model_of_sounds(trained: Path, name: str) -> None:
    test = page(name)
    assert not test.error and not test.exception


def test_built_in_examples_of_sounds_are_scored(trained: Path) -> None:
    test = page("anomalies")
    assert len(test.dataframe[0].value) > 8 and "No built-in examples" not in str([c.value for c in test.caption])
