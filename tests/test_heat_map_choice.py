"""Which heat map the Anomalies page shows: a choice where a model has several, restored by links, also by old ones."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard import scoring
from dashboard.scoring import ScoreBook, sight
from gdm_core.anomaly import light, map_images, maps_for, normalise_map
from gdm_core.data import load_dataset
from gdm_core.storage import load_model, save_model
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import finished, page, words

RBM, NADE, ENERGY = "digits-rbm/1", "digits-nade/1", "digits-deep_energy/1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store with models of two heat maps and one of one, and the folder of their files."""
    folder = tmp_path_factory.mktemp("maps")
    with using(new_store(folder)):
        for name in ("rbm", "nade"):
            register_model(folder, name, updates=30, learning_rate=0.05)
        for name in ("deep_energy", "dbm"):
            register_model(folder, name)
        yield folder


def pictures(test: AppTest) -> str:
    """The gallery of images with their heat maps, as HTML."""
    return next(element.proto.body for element in test.get("html") if '<div class="card' in element.proto.body)


def choices(test: AppTest) -> list:
    return [element for element in test.get("button_group") if element.key == "map"]


def test_a_model_of_several_maps_gives_a_choice_that_a_link_restores(folder):
    test = page("anomalies", models=RBM, examples="shuffled pixels")
    (choice,) = choices(test)
    assert choice.options == ["surprise", "gradient"] and choice.value == "surprise"
    assert "Right: surprise of each pixel" in words(test) and "map" not in test.query_params
    assert "**gradient of the free energy**: How far the free energy would fall" in choice.help.replace("\\", "")
    usual = pictures(test)
    finished(choice.set_value("gradient").run())
    assert "Right: gradient of the free energy" in words(test).replace("\\", "") and pictures(test) != usual
    linked = page("anomalies", models=RBM, examples="shuffled pixels", map="gradient")
    assert choices(linked)[0].value == "gradient" and pictures(linked) == pictures(test)
    assert pictures(page("anomalies", models=RBM, examples="shuffled pixels", map="nonsense")) == usual


def test_a_model_of_one_map_gives_none(folder):
    for query in ({}, {"map": "gradient"}):
        test = page("anomalies", models=NADE, examples="shuffled pixels", **query)
        assert not choices(test) and "Right: surprise of each pixel" in words(test) and not test.error


def test_beside_a_model_without_the_map_chosen_each_shows_what_it_has(folder):
    test = page("anomalies", models=[RBM, NADE], examples="shuffled pixels", map="gradient")
    assert choices(test)[0].value == "gradient" and not test.error
    finished(test.selectbox(key="look").select(f"{NADE} · surprise, -log p(x)").run())
    assert not choices(test) and "Right: surprise of each pixel" in words(test) and not test.error


def test_a_map_that_the_next_model_looked_at_has_not_gives_way_to_its_own(folder):
    dbm = "digits-dbm/1"
    test = page("anomalies", models=[RBM, dbm], examples="shuffled pixels")
    assert choices(test)[0].value == "surprise"
    for word, label in {"reconstruction error": "reconstruction error of each pixel",
                        "gradient": "gradient of the bound on the free energy"}.items():  # fmt: skip
        finished(test.selectbox(key="look").select(f"{dbm} · bound on the free energy").run())
        assert choices(test)[0].value == word and f"Right: {label}" in words(test)
        finished(choices(test)[0].set_value("gradient").run())
        finished(test.selectbox(key="look").select(f"{RBM} · free energy").run())
        assert choices(test)[0].value == "gradient" and "Right: gradient of the free energy" in words(test)


def test_brightness_is_the_librarys_with_the_scale_of_its_own_map(folder):
    stored = tracking.load_registered("models:/digits-rbm/1")
    model = scoring.subject(RBM, "models:/digits-rbm/1", stored, nullcontext())
    data = _digits(model)
    gradient = maps_for(stored.model)[1]
    scale = model.calibration.further_scales["gradient"]
    book = ScoreBook()
    found = {word: book.brightness(model, data, word) for word in ("surprise", "gradient", None)}
    expected = light(normalise_map(map_images(stored.model, data.x, gradient), scale))
    assert torch.equal(found["gradient"], expected) and not torch.equal(found["surprise"], expected)
    assert torch.equal(found["surprise"], found[None])


def test_a_calibration_of_one_map_gives_no_choice(folder):
    stored = load_model(folder / "rbm")
    before = {name: tensor for name, tensor in stored.calibration.items() if not name.startswith("map.gradient.")}
    assert len(before) == len(stored.calibration) - 2
    save_model(stored.model, folder / "old", dataset=stored.card.dataset, treatment=stored.treatment,
               calibration=before)  # fmt: skip
    model = scoring.subject(RBM, "old", load_model(folder / "old"), nullcontext())
    seen = _digits(model)
    assert [method.word for method in model.maps] == ["surprise"]
    assert torch.equal(ScoreBook().brightness(model, seen, "gradient"), ScoreBook().brightness(model, seen))


@pytest.mark.parametrize("label", ["free energy", "energy"])
def test_links_to_scores_by_their_former_names_still_find_them(folder, label):
    test = page("anomalies", models=RBM, examples="shuffled pixels", scores=[label, "strangest pixels"])
    assert test.multiselect(key="scores").value == ["energy", "peak"]
    assert "free energy" in words(test)  # what it is of this model, whatever the picker calls it


def test_a_link_to_what_was_looked_at_by_its_former_name_still_shows_it(folder):
    """The energy of a model without hidden units was called free once; another score is the first in the list."""
    query = dict(models=ENERGY, examples="shuffled pixels", scores=["free energy", "strangest pixels"])
    for name in ("free energy", "energy"):
        test = page("anomalies", look=f"{ENERGY} · {name}", **query)
        assert test.selectbox(key="look").options == [f"{ENERGY} · energy", f"{ENERGY} · strangest pixels"]
        assert test.selectbox(key="look").value == f"{ENERGY} · energy" and "free energy" not in words(test)
    assert page("anomalies", look=f"{ENERGY} · strangest pixels", **query).selectbox(key="look").index == 1


def _digits(model: scoring.Subject) -> scoring.Sight:
    images = load_dataset("digits").splits["test"].images[:4]
    turned = images.flip(2).contiguous()
    return sight(model, scoring.example_pictures(turned, 17, "digit", [model.format]))
