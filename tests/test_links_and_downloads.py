"""What a link restores, what a downloaded file is called, and that no picture is made twice."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy
import pytest
import streamlit as st
from PIL import Image

from dashboard import images, latent_paths
from dashboard.views.anomaly_results import IN_TABLE
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import finished, page


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store with models that draw, run chains and walk; {architecture: address}."""
    folder = tmp_path_factory.mktemp("links")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("rbm", "vae", "dcgan")}


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The files that a page offers, by their names, as it was last drawn."""
    offered: dict[str, object] = {}
    button = st.download_button

    def recorded(label: str, data: object, file_name: str, *rest: object, **named: object) -> bool:
        offered.pop(file_name, None)
        offered[file_name] = data
        return button(label, data, file_name, *rest, **named)

    monkeypatch.setattr(st, "download_button", recorded)
    return offered


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The pictures that were made into PNGs."""
    pictures: list[object] = []
    png = images.png
    monkeypatch.setattr(images, "png", lambda picture: pictures.append(picture) or png(picture))
    return pictures


# --- samples ----------------------------------------------------------------------------------------------------------


def test_downloaded_samples_are_called_by_what_was_asked(models, files) -> None:
    page("samples", models=["digits-vae/1", "digits-rbm/1"], n="4", seed="3", temperature="0.5")
    wanted = "n4-seed3-temperature0.5.png"
    assert set(files) == {f"digits-vae-1-{wanted}", f"digits-rbm-1-{wanted}", f"samples-{wanted}"}


def test_a_finished_grid_is_made_into_a_png_once(models, encoded) -> None:
    test = page("samples", models="digits-vae/1", n="4")
    before = len(encoded)
    for _ in range(3):
        finished(test.run())
    assert before and len(encoded) == before
    finished(test.number_input(key="n").set_value(5).run())
    assert len(encoded) > before


# --- chains -----------------------------------------------------------------------------------------------------------


def step(test):
    return next(one for one in test.select_slider if one.label == "Step")


def test_a_link_restores_the_step_of_the_chains(models, files) -> None:
    query = {"models": "digits-rbm/1", "n": "2", "steps": "10", "temperature": "1.5"}
    usual = step(page("chains", **query))
    assert usual.value == 10
    assert step(page("chains", **query, **{usual.key: "4"})).value == 4
    assert list(files)[-1] == "digits-rbm-1-chains-test-images-n2-seed0-temperature1.5-step4.png"


def test_a_step_that_shorter_chains_do_not_have_is_dropped(models) -> None:
    test = page("chains", models="digits-rbm/1", n="2", steps="20")
    finished(step(test).set_value(14).run())
    finished(next(one for one in test.select_slider if one.label == "Steps").set_value(10).run())
    assert not test.error and step(test).value == 10


# --- anomalies --------------------------------------------------------------------------------------------------------

EXAMPLES = ["normal", "shuffled pixels", "pasted block"]


def cards(test) -> str:
    return next(element.proto.body for element in test.get("html") if '<div class="card' in element.proto.body)


def test_a_link_restores_the_page_of_images(models) -> None:
    query = {"models": "digits-rbm/1", "examples": EXAMPLES}
    first, second = page("anomalies", **query), page("anomalies", **query, page="2")
    assert cards(first) != cards(second) and cards(page("anomalies", **query, page="99")) == cards(first)


def test_images_are_made_into_pngs_once(models, monkeypatch) -> None:
    sides: list[int] = []
    image_png = images.image_png
    monkeypatch.setattr(images, "image_png", lambda x, side: sides.append(side) or image_png(x, side))
    test = page("anomalies", models="digits-rbm/1", examples=EXAMPLES)
    assert IN_TABLE in sides
    sides.clear()
    finished(test.number_input(key="rate").set_value(20.0).run())
    assert IN_TABLE not in sides and "false-alarm rate 20" in "".join(one.value for one in test.caption)


def test_the_chosen_image_its_map_and_both_are_one_download(models, files) -> None:
    page("anomalies", models="digits-rbm/1", examples="pasted block")
    (name,) = [name for name in files if name.endswith(".png")]
    assert name.startswith("pasted block ") and name.endswith("-digits-rbm-1-surprise.png")
    picture = numpy.asarray(Image.open(io.BytesIO(files[name]())).convert("RGB")).astype(int)
    height, width, _ = picture.shape
    seen, heat, over = (picture[:, i * width // 3 + 20 : (i + 1) * width // 3 - 20] for i in range(3))
    assert width > 3 * height and set(numpy.unique(seen)) <= {0, 255}  # a binary model's image
    assert (heat == 0).all(-1).any() and len(numpy.unique(over)) > 2


# --- interpolation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"between": "Two test images", "from": "3", "to": "5", "steps": "4"}, "path-from3-to5-steps4.png"),
        ({"between": "Two random points", "seed": "7"}, "path-seed7-steps10.png"),
        ({"between": "Random walk", "seed": "7", "frames": "16"}, "walk-seed7-frames16.gif"),
    ],
)
def test_downloaded_ways_are_called_by_what_was_asked(models, files, query: dict[str, str], name: str) -> None:
    page("interpolate", models="digits-vae/1", **query)
    assert f"digits-vae-1-{name}" in files


def test_another_model_leaves_the_first_ones_way_as_it_is(models) -> None:
    test = page("interpolate", models="digits-vae/1", between="Random walk", frames="16")
    walked = test.session_state["_jobs"].get(f"interpolate {models['vae']}").result
    finished(test.multiselect(key="models").set_value(["digits-vae/1", "digits-dcgan/1"]).run())
    jobs = test.session_state["_jobs"]
    assert jobs.get(f"interpolate {models['vae']}").result is walked
    assert jobs.get(f"interpolate {models['dcgan']}").result.count == 16 and len(test.get("download_button")) == 4


def test_a_walk_stands_still_where_it_is_not_to_play(models) -> None:
    query = {"models": "digits-vae/1", "between": "Random walk", "frames": "16"}

    def shown(test) -> str:
        return next(element.proto.body for element in test.get("html") if "<img" in element.proto.body)

    assert "image/gif" in shown(page("interpolate", **query)) and 'class="still"' in shown(page("interpolate", **query))
    assert "image/gif" not in shown(page("interpolate", **query, play="false"))


def test_a_way_that_fails_is_told_and_the_others_go_on(models, monkeypatch) -> None:
    random_walk = latent_paths.random_walk

    def fails_for_the_gan(loaded, seed: int, frames: int):
        if "dcgan" in loaded.uri:
            raise ValueError("this latent space has a hole")
        return random_walk(loaded, seed, frames)

    monkeypatch.setattr(latent_paths, "random_walk", fails_for_the_gan)
    test = page("interpolate", models=["digits-dcgan/1", "digits-vae/1"], between="Random walk", frames="16")
    assert len(test.error) == 1 and len(test.get("download_button")) == 2
