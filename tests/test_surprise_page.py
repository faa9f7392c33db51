"""The Surprise page without a browser, and what it rests on: maps, what was expected of a pixel, their figures."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy
import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import Tensor

from dashboard.figures.surprise import density_figure, levels_figure, surprise_figure
from dashboard.pixel_surprise import Surprise, expected_of, surprise_of
from dashboard.views import surprise as view
from gdm_core.contract import GenerativeModel
from gdm_core.data import load_dataset
from gdm_core.data.treatments import quantise
from gdm_core.registry import build_model
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import empty_store, page, png, upload, words  # noqa: F401

MODELS = ("nade", "pixel_cnn")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with models of binary pixels and of levels that know single pixels, and one that does not."""
    folder = tmp_path_factory.mktemp("surprise")
    with using(new_store(folder)):
        addresses = {name: register_model(folder, name) for name in (*MODELS, "vae")}
        (folder / "levels").mkdir()
        yield addresses | {"levels": register_model(folder / "levels", "pixel_cnn", pixels="levels", levels=17)}


def digit(number: int) -> Tensor:
    """A test image as models of binary pixels see it, (1, 1, 8, 8)."""
    return (load_dataset("digits").splits["test"].images[[number]] >= 8).float()


class TwoRealPixels(GenerativeModel):
    """At the left p = 2 x in red, 2 (1 - x) in green, 1 in blue; at the right 1; its map sums to `off` less."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__((3, 1, 2), "real", None)
        self.off = off

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.log(2 * x[:, 0, 0, 0]) + torch.log(2 * (1 - x[:, 1, 0, 0]))

    def log_prob_map(self, x: Tensor) -> Tensor:
        return torch.stack([self.log_prob(x) - self.off, torch.zeros(len(x))], 1)[:, None, None]

    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        colours = torch.stack([torch.log(2 * values), torch.log(2 * (1 - values)), torch.zeros(len(values))])
        return (colours * (column == 0)).expand(len(x), -1, -1)


# --- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_surprise_is_the_models_own_and_sums_to_the_likelihood(models, name):
    model, x = tracking.load_model(models[name]), digit(4)
    surprise = surprise_of(model, x)
    with torch.no_grad():
        torch.testing.assert_close(surprise.map, -model.log_prob_map(x)[0, 0].double())
        assert surprise.exact == pytest.approx(-float(model.log_prob(x)))
    row, column = surprise.most_surprising
    assert surprise.map[row, column] == surprise.map.max() == surprise.high and surprise.low == 0
    assert f"sum to {surprise.exact:.2f} nats, which is -log p(x), exact" in surprise.in_words()


def test_a_map_that_sums_to_more_says_so():
    x = torch.full((1, 3, 1, 2), 0.25)
    surprise = surprise_of(TwoRealPixels(off=0.5), x)
    assert surprise.total == pytest.approx(0.5 - math.log(0.5 * 1.5))
    assert "0.79 nats, more than -log p(x) = 0.29 nats" in surprise.in_words()
    assert "orderings" in surprise.in_words()
    assert Surprise(surprise.map, None).in_words() == "The pixels sum to 0.79 nats."


def test_densities_above_one_lower_the_scale():
    x = torch.tensor([0.9, 0.1, 0.5])[None, :, None, None].expand(1, 3, 1, 2)
    assert surprise_of(TwoRealPixels(), x).low == pytest.approx(-2 * math.log(1.8))


@pytest.mark.parametrize(("name", "levels"), [("nade", 2), ("pixel_cnn", 2), ("levels", 17)])
def test_what_was_expected_is_a_distribution_that_gives_the_map(models, name, levels):
    model = tracking.load_model(models[name])
    stored = load_dataset("digits").splits["test"].images[[4]]
    x = quantise(stored, 17, levels).float() / (levels - 1) if levels > 2 else digit(4)
    surprise = surprise_of(model, x)
    for row, column in ((0, 0), (3, 4), (7, 7)):
        expected = expected_of(model, x, row, column)
        assert expected.log_prob.shape == (1, levels) and expected.levels == levels
        assert float(expected.log_prob.exp().sum()) == pytest.approx(1, abs=1e-5)
        assert expected.true == [float(x[0, 0, row, column])]
        assert expected.surprise == pytest.approx(float(surprise.map[row, column]), abs=1e-5)


def test_a_real_pixel_has_a_density_in_each_colour():
    x = torch.tensor([0.1, 0.4, 0.7])[None, :, None, None].expand(1, 3, 1, 2).contiguous()
    expected = expected_of(TwoRealPixels(), x, 0, 0)
    assert expected.levels is None and expected.log_prob.shape == (3, len(expected.values))
    assert expected.log_prob.exp().mean(1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)  # the integral over [0, 1]
    assert expected.true_log_prob == pytest.approx([math.log(0.2), math.log(1.2), 0.0], abs=1e-6)
    assert "red 0.100 had density 0.2, green 0.400 had density 1.2, blue 0.700 had density 1" in expected.in_words()


def test_a_binary_pixel_in_words(models):
    model = tracking.load_model(models["nade"])
    expected = expected_of(model, digit(4), 3, 4)
    on = float(expected.log_prob[0, 1].exp())
    assert f"1 with probability {on:.3g}" in expected.in_words()
    assert expected.in_words().endswith(f"it is {int(digit(4)[0, 0, 3, 4])}.")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_map_is_drawn_as_it_is_with_a_point_on_each_pixel():
    surprise = numpy.arange(12.0).reshape(3, 4)
    figure = surprise_figure(surprise, (1, 2), (0.0, 20.0))
    heat, points = figure.data
    assert numpy.array_equal(heat.z, surprise) and (heat.zmin, heat.zmax) == (0.0, 20.0)
    assert [divmod(i, 4) for i in range(12)] == list(zip(points.y, points.x, strict=True))  # numbered row by row
    assert [float(text) for text in points.text] == surprise.flatten().tolist()
    assert list(points.selectedpoints) == [6] and set(points.customdata) == {6}
    frames = {(s.x0, s.x1, s.y0, s.y1) for s in figure.layout.shapes}
    assert frames == {(1.5, 2.5, 0.5, 1.5)} and figure.layout.yaxis.range == (2.5, -0.5)  # the first row is on top


def test_no_colour_of_the_map_is_one_that_streamlit_replaces():
    colours = [colour for _, colour in surprise_figure(numpy.zeros((2, 2)), (0, 0)).data[0].colorscale]
    assert len(colours) == 10 and not [colour for colour in colours if re.search(r"#0000[0-4]\d", colour)]


def test_the_true_level_is_marked():
    figure = levels_figure(numpy.array([[0.1, 0.7, 0.2]]), [2])
    bars = figure.data[0]
    assert list(bars.y) == [0.1, 0.7, 0.2] and len(set(bars.marker.color[:2])) == 1
    assert bars.marker.color[2] != bars.marker.color[0] and figure.layout.shapes[0].x0 == 2
    assert [note.text for note in figure.layout.annotations] == ["this pixel: 2"]


def test_each_colour_has_a_panel_and_many_levels_are_a_line():
    figure = levels_figure(numpy.full((3, 256), 1 / 256), [0, 17, 255])
    assert len(figure.data) == 3 and all(trace.type == "scatter" for trace in figure.data)
    assert [shape.x0 for shape in figure.layout.shapes] == [0, 17, 255]
    titles = [figure.layout[f"yaxis{number}"].title.text for number in ("", 2, 3)]
    assert titles == ["probability, red", "probability, green", "probability, blue"]


def test_a_density_is_a_curve_with_its_value_marked():
    values = numpy.linspace(0, 1, 5)
    figure = density_figure(values, numpy.stack([2 * values]), [0.25])
    assert numpy.array_equal(figure.data[0].y, 2 * values) and figure.layout.shapes[0].x0 == 0.25


# --- the page ---------------------------------------------------------------------------------------------------------


def charts(test: AppTest) -> int:
    return len(test.get("plotly_chart"))


def test_the_page_shows_map_and_expectation_of_every_model_that_can(models):
    test = page("surprise")
    assert not test.error and not test.warning
    assert set(test.multiselect(key="models").value) == {"digits-nade/1", "digits-pixel_cnn/2"}
    assert "cannot say how likely each pixel is: digits-vae" in words(test) and charts(test) == 4
    assert words(test).count("which is -log p") == 2


def test_at_first_the_most_surprising_pixel_is_chosen(models):
    test = page("surprise", models="digits-nade/1", number="11")
    surprise = surprise_of(tracking.load_model(models["nade"]), digit(11))
    row, column = surprise.most_surprising
    assert f"Row {row}, column {column}: **{surprise.high:.3g} nats**" in words(test)
    assert test.number_input(key="row").value is None and "row" not in test.query_params


def test_an_address_restores_image_and_pixel(models):
    test = page("surprise", models="digits-pixel_cnn/1", number="5", row="0", column="6")
    surprise = surprise_of(tracking.load_model(models["pixel_cnn"]), digit(5))
    assert f"Row 0, column 6: **{float(surprise.map[0, 6]):.3g} nats**" in words(test) and charts(test) == 2
    assert test.number_input(key="row").value == 0 and test.number_input(key="number").value == 5
    button = next(button for button in test.button if button.label == "The most surprising")
    button.click().run()
    assert f"Row {surprise.most_surprising[0]}, column {surprise.most_surprising[1]}: " in words(test)


@pytest.mark.parametrize("sent", [{"row": "8"}, {"row": "-1", "column": "x"}, {"number": "99999"}, {"models": "none"}])
def test_nonsense_in_the_address_is_dropped(models, sent):
    test = page("surprise", **sent)
    assert not test.error and charts(test) == 4


def test_a_click_chooses_the_pixel_it_hit_and_a_second_one_changes_nothing(monkeypatch):
    def after(*places: int) -> dict:
        points = SimpleNamespace(selection=SimpleNamespace(points=[{"point_index": place} for place in places]))
        session: dict = {"map": points}
        monkeypatch.setattr(view.st, "session_state", session)
        view._clicked("map", 8)
        return {key: value for key, value in session.items() if key != "map"}

    assert after(8 * 3 + 5) == {"row": 3, "column": 5} and after() == {}


def test_levels_are_shown_as_levels(models):
    test = page("surprise", models="digits-pixel_cnn/2", row="3", column="4", number="4")
    level = int(load_dataset("digits").splits["test"].images[4, 0, 3, 4])
    assert f"its value {level} had probability" in words(test) and "17 levels" in words(test)


def test_without_models_it_says_what_to_do(empty_store):  # noqa: F811
    test = page("surprise")
    assert not test.error and "`nade`" in words(test) and "`vae`" not in words(test)
    assert "python -m pipelines train pixel" in words(test) and not test.multiselect


def test_with_models_that_cannot_it_says_who_can(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "vae")
        test = page("surprise")
    assert "None of the registered models (digits-vae) can" in words(test).replace("\\", "")
    assert "`pixel_cnn`" in words(test) and not test.multiselect and not test.error


def test_a_model_that_says_no_conditional_keeps_its_map(models, monkeypatch):
    monkeypatch.setattr(view, "has", lambda model, capability: False)
    test = page("surprise", models="digits-nade/1")
    assert charts(test) == 1 and "not what else it expected there" in words(test)


def test_an_upload_is_looked_at(models):
    test = page("surprise", models="digits-nade/1", image="Upload", row="3", column="4")
    assert "Upload an image" in words(test) and not charts(test)
    upload(test, ("text.png", b"no picture"))
    assert len(test.warning) == 1 and "text.png" in test.warning[0].value and not charts(test)
    upload(test, ("nine.png", png(load_dataset("digits").splits["test"].images[9])))
    surprise = surprise_of(tracking.load_model(models["nade"]), digit(9))
    assert f"**{float(surprise.map[3, 4]):.3g} nats**" in words(test) and charts(test) == 2 and not test.warning


def test_a_colour_image_is_one_for_a_model_of_grey_ones(models):
    test = page("surprise", models="digits-nade/1", image="Upload")
    upload(test, ("colour.png", png(torch.randint(0, 17, (3, 20, 30), generator=torch.Generator().manual_seed(0)))))
    assert charts(test) == 2 and not test.error


def test_the_expectation_of_an_untrained_model_is_even():
    model = build_model("independent_bernoulli", (1, 2, 2))
    assert expected_of(model, torch.zeros(1, 1, 2, 2), 1, 0).log_prob[0].exp().tolist() == pytest.approx([0.5, 0.5])
