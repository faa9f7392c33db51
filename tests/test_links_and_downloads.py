"""What a link restores, what a downloaded file is called, and that no picture is made twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import streamlit as st

from dashboard import images
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import finished, page


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store with models that draw, run chains and walk; {architecture: address}."""
    folder = tmp_path_factory.mktemp("links")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("rbm", "vae", "independent_bernoulli")}


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that a page offers, as it is drawn."""
    names: list[str] = []
    button = st.download_button

    def recorded(label: str, data: object, file_name: str, *rest: object, **named: object) -> bool:
        names.append(file_name)
        return button(label, data, file_name, *rest, **named)

    monkeypatch.setattr(st, "download_button", recorded)
    return names


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
    assert files[-1] == "digits-rbm-1-chains-test-images-n2-seed0-temperature1.5-step4.png"


def test_a_step_that_shorter_chains_do_not_have_is_dropped(models) -> None:
    test = page("chains", models="digits-rbm/1", n="2", steps="20")
    finished(step(test).set_value(14).run())
    finished(next(one for one in test.select_slider if one.label == "Steps").set_value(10).run())
    assert not test.error and step(test).value == 10
