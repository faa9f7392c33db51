"""Pages show and measure what a model was trained on, and the model that is registered now, or say why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard import loading, trained_on
from gdm_core.data import DataError, load_dataset
from pipelines.store import client
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import finished, page, words


def pictures(folder: Path, count: int) -> Path:
    """A folder of as many images of noise, 8x8."""
    folder.mkdir(exist_ok=True)
    noise = torch.randint(0, 256, (count, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels.numpy()).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.parametrize("name", ["interpolate", "anomalies"])
def test_a_folder_that_has_changed_is_not_shown_as_what_the_model_saw(name: str, tmp_path: Path) -> None:
    """One image more, and what were training images would be dealt into the other splits."""
    folder = pictures(tmp_path / f"pictures-{name}", 60)
    with using(new_store(tmp_path / "store")):
        data = load_dataset(f"folder:{folder}", size=8)
        address = register_model(tmp_path / "model", "vae", data=data)
        pictures(folder, 61)
        said = words(page(name))
        assert "are not those of the record" in said and "put the old files back" in said
        (folder / "060.png").unlink()
        assert "are not those of the record" in words(page(name))  # for some seconds
        trained_on._tried.clear()
        assert "of the record" not in words(page(name))  # what is missing is looked for anew
        shutil.rmtree(folder)
        assert "of the record" not in words(page(name))  # what was found is kept: it is what the model was trained on
        assert trained_on.dataset(loading.card(address)).digest == data.digest


def test_a_card_that_names_no_data_set_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        card = loading.card(register_model(tmp_path, "independent_bernoulli"))
        card.dataset["specification"] = {"name": "digits", "run": "me"}
        with pytest.raises(DataError, match="names no data set"):
            trained_on.dataset(card)


def test_a_name_that_was_deleted_and_registered_again_answers_with_its_new_weights(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        address = register_model(tmp_path / "first", "vae")
        first, files = loading.model(address), loading.version_files(address)
        client().delete_registered_model("digits-vae")
        assert register_model(tmp_path / "second", "vae", updates=5) == address
        loading.refresh()
        second = loading.model(address)
        changed = [not a.equal(b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True)]
        assert all(changed) and loading.version_files(address) != files
        assert loading.model(address) is second


def test_a_session_drops_what_it_made_of_a_model_that_was_replaced(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        address = register_model(tmp_path / "first", "vae")
        test = page("anomalies")
        book, before = test.session_state["_scores"], scores(test)
        assert finished(test.run()).session_state["_scores"] is book
        client().delete_registered_model("digits-vae")
        loading.refresh()
        test.run()  # while the name is not registered
        assert register_model(tmp_path / "second", "vae", updates=200, learning_rate=0.01) == address
        loading.refresh()
        finished(test.run())
        assert test.session_state["_scores"] is not book and (scores(test) != before).all()


def scores(test: AppTest) -> torch.Tensor:
    """What the job of the Anomalies page found for the images on it, by its one model and score."""
    _, job = test.session_state["_jobs"]._jobs["scores"]
    return job.result[0]
