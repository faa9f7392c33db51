"""The Filters page without a browser, and what it rests on: the use of hidden units, driving images, colours."""

from __future__ import annotations

import base64
import io
import re
import threading

import numpy
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import Tensor

from dashboard import weight_colours
from dashboard.hidden_units import PORTION, TOP, driving_images, layer_of, measuring
from dashboard.jobs import Job
from gdm_core.data import load_dataset
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import empty_store, page, words  # noqa: F401

RBM, MACHINE, MIXTURE = "digits-rbm/1", "digits-helmholtz_machine/1", "digits-mixture_of_bernoullis/1"
UNITS = 30  # of the first layer of the tiny Helmholtz machine


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with models whose units can be measured, one whose cannot, and one without; {architecture: address}."""
    folder = tmp_path_factory.mktemp("filters")
    names = ("nade", "mixture_of_bernoullis", "rbm", "helmholtz_machine")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in names}


def digits(split: str = "validation") -> Tensor:
    """The images of a split as models of binary pixels see them."""
    return (load_dataset("digits").splits[split].images >= 8).float()


def captions(test: AppTest) -> list[tuple[str, str]]:
    """Number and use of each unit on the page, in its order."""
    return re.findall(r"<figcaption>(\d+) · ([^<]+)</figcaption>", html(test))


def html(test: AppTest) -> str:
    return "\n".join(element.value if hasattr(element, "value") else element.proto.body for element in test.get("html"))


def activations(models: dict[str, str], name: str, layer: int = 0) -> Tensor:
    with torch.no_grad():
        return tracking.load_model(models[name]).hidden_layers(digits())[layer]


# --- what is computed -------------------------------------------------------------------------------------------------


def test_units_that_never_or_always_fire_are_counted():
    columns = [
        torch.full((40,), 0.049), torch.zeros(40), torch.full((40,), 0.951), torch.full((40,), 0.95),
        torch.tensor([0.06] + [0.0] * 39), torch.linspace(0, 1, 40),
    ]  # fmt: skip
    layer = layer_of(torch.stack(columns, 1))
    assert layer.never.tolist() == [True, True, False, False, False, False]
    assert layer.always.tolist() == [False, False, True, False, False, False]
    assert "2 (33.3%) never fire (below 5% on each of 40 validation images) and 1 (16.7%)" in layer.in_words()
    assert "It never fires." in layer.unit_in_words(0) and "It always fires." in layer.unit_in_words(2)
    assert "fires" not in layer.unit_in_words(4)
    assert "50.0% on average" in layer.unit_in_words(5) and "0.0% to 100.0%" in layer.unit_in_words(5)


def test_the_top_images_are_those_with_the_highest_activation():
    values = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    layer = layer_of(values)
    assert layer.top.shape == (3, TOP)
    for unit in range(3):
        order = numpy.argsort(-values[:, unit].numpy(), kind="stable")[:TOP]
        assert layer.top[unit].tolist() == order.tolist()
        assert layer.top_activation[unit].tolist() == values[order, unit].double().tolist()


def test_driving_images_are_means_weighted_by_activation():
    values = torch.tensor([[0.2, 0.0], [0.6, 0.0], [0.0, 0.0]])
    x = torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    means = driving_images(x, layer_of(values), torch.tensor([1, 0]))
    assert means[1].flatten().tolist() == pytest.approx([0.75] * 4)  # (0.6 * 1 + 0.2 * 0 + 0 * 0.5) / 0.8
    assert means[0].flatten().tolist() == pytest.approx([0.5] * 4)  # of a unit that is off, all alike


def test_measuring_takes_a_few_images_at_a_time_and_gives_all_layers(models):
    model, held, lock = tracking.load_model(models["helmholtz_machine"]), [], threading.Lock()

    class Watched:
        def hidden_layers(self, x: Tensor) -> list[Tensor]:
            held.append((lock.locked(), len(x)))
            return model.hidden_layers(x)

    layers = measuring(Watched(), lock, digits())(Job("units"))
    assert held == [(True, PORTION)] * 3 and [len(layer.mean) for layer in layers] == [UNITS, 5]
    for number, layer in enumerate(layers):
        torch.testing.assert_close(layer.mean, activations(models, "helmholtz_machine", number).double().mean(0))


def test_colours_are_clear_at_zero_and_the_same_far_on_both_sides():
    weights = torch.tensor([[-2.0, -1.0, 0.0], [1.0, 2.0, 9.0]])
    dots = numpy.asarray(Image.open(io.BytesIO(weight_colours.clear_png(weights, 2.0))))
    assert dots.shape == (2, 3, 4) and dots[..., 3].tolist() == [[255, 128, 0], [128, 255, 255]]
    assert (dots[0, :2, 2] > dots[0, :2, 0]).all() and (dots[1, :, 0] > dots[1, :, 2]).all()  # blue below, red above
    white = weight_colours.on_white(weights[None], 2.0)
    assert white.shape == (1, 3, 2, 3) and white[0, :, 0, 2].tolist() == [1, 1, 1]
    assert white[0, :, 0, 0].tolist() == pytest.approx(weight_colours.BELOW)


def test_the_scale_leaves_out_half_a_percent_and_is_never_nothing():
    weights = torch.arange(1, 1001).double().view(10, 1, 10, 10) * torch.tensor([1, -1]).repeat(5)
    assert weight_colours.limit_of(weights) == 995 and weight_colours.share_beyond(weights, 995) == 0.005
    assert weight_colours.limit_of(torch.zeros(2, 1, 2, 2)) == 1.0
    lonely = torch.zeros(100, 1, 2, 2)
    lonely[0, 0, 0, 0] = -3
    assert weight_colours.limit_of(lonely) == 3.0


def test_colours_lie_side_by_side_and_a_signal_is_made_higher():
    weights = torch.rand(2, 3, 4, 5)
    shown = weight_colours.laid_out(weights)
    assert shown.shape == (2, 4, 3 * 5 + 2) and torch.equal(shown[:, :, 6:11], weights[:, 1].double())
    assert (shown[:, :, [5, 11]] == 0).all()
    assert weight_colours.laid_out(torch.rand(2, 1, 1, 64)).shape == (2, 16, 64)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_units_are_shown_by_use_with_their_own_weights(models):
    test = page("filters", models=RBM)
    assert not test.error and not test.warning
    use = activations(models, "rbm").double().mean(0)
    order = use.argsort(descending=True).tolist()
    assert captions(test) == [(str(unit), f"{float(use[unit]):.1%}") for unit in order]
    assert "Of 8 units" in words(test) and "cannot show hidden units as images: digits-nade" in words(test)
    weights = tracking.load_model(models["rbm"]).filters()
    limit = weight_colours.limit_of(weights)
    assert f"-{limit:.3g} " in html(test) and f"+{limit:.3g}" in html(test)
    first = re.search(r'src="data:image/png;base64,([^"]+)" alt="weights of unit (\d+)', html(test))
    assert int(first[2]) == order[0]
    assert base64.b64decode(first[1]) == weight_colours.clear_png(weights[order[0], 0].double(), limit)


def test_other_orders(models):
    use = activations(models, "rbm").double().mean(0)
    least = captions(page("filters", models=RBM, order="Least used first"))
    assert [int(unit) for unit, _ in least] == use.argsort().tolist()
    largest = captions(page("filters", models=RBM, order="Largest weights first"))
    norms = tracking.load_model(models["rbm"]).filters().flatten(1).norm(dim=1)
    assert [int(unit) for unit, _ in largest] == norms.argsort(descending=True).tolist()


def test_a_never_firing_unit_is_counted_on_the_page(models, monkeypatch):
    kind = type(tracking.load_model(models["rbm"]))
    own = kind.hidden_layers
    monkeypatch.setattr(kind, "hidden_layers", lambda self, x: [own(self, x)[0] * (torch.arange(8) != 3)])
    test = page("filters", models=RBM, unit="3")
    assert "1 (12.5%) never fire" in words(test) and "It never fires." in words(test)
    assert captions(test)[-1] == ("3", "0.0%")


def test_a_chosen_unit_shows_the_images_that_switch_it_on_most(models):
    test = page("filters", models=RBM, unit="2")
    values = activations(models, "rbm")[:, 2]
    top = values.sort(descending=True, stable=True)
    found = re.findall(r'alt="validation image (\d+) switches unit 2 on to ([^"]+)"', html(test))
    pairs = zip(top.indices[:TOP].tolist(), top.values[:TOP].tolist(), strict=True)
    assert found == [(str(row), f"{value:.1%}") for row, value in pairs]
    assert test.number_input(key="unit").value == 2


def test_deeper_layers_show_driving_images(models):
    test = page("filters", models=MACHINE, layer="Layer 2")
    assert not test.error
    use = activations(models, "helmholtz_machine", 1).double().mean(0)
    assert [int(unit) for unit, _ in captions(test)] == use.argsort(descending=True).tolist()
    assert "driving images of unit" in html(test) and "weights of unit" not in html(test)
    assert "mean of the 16 validation images" in words(test) and "Of 5 units" in words(test)


def test_many_units_have_pages_that_the_address_restores(models):
    use = activations(models, "helmholtz_machine").double().mean(0)
    order = use.argsort(descending=True).tolist()
    test = page("filters", models=MACHINE, n="24", page="2")
    assert [int(unit) for unit, _ in captions(test)] == order[24:UNITS]
    assert test.number_input(key="page").value == 2
    far = page("filters", models=MACHINE, n="24", page="99")
    assert not far.error and [int(unit) for unit, _ in captions(far)] == order[:24]


def test_without_activations_units_are_sorted_by_the_norm_of_their_weights(models):
    test = page("filters", models=MIXTURE)
    norms = tracking.load_model(models["mixture_of_bernoullis"]).filters().double().flatten(1).norm(dim=1)
    order = norms.argsort(descending=True).tolist()
    assert not test.error and captions(test) == [(str(unit), f"{float(norms[unit]):.3g}") for unit in order]
    assert "does not say which of its units" in words(test) and "the norm of its weights" in words(test)


@pytest.mark.parametrize("sent", [{"unit": "99"}, {"layer": "Layer 7"}, {"order": "x"}, {"n": "5"}, {"models": "none"}])
def test_nonsense_in_the_address_is_dropped(models, sent):
    test = page("filters", **{"models": RBM} | sent)
    assert not test.error and captions(test)


def test_without_the_data_set_the_weights_are_still_shown(models, monkeypatch):
    from dashboard import trained_on
    from gdm_core.data.errors import DataError

    def gone(card: object) -> None:
        raise DataError("its files are not here")

    monkeypatch.setattr(trained_on, "dataset", gone)
    test = page("filters", models=RBM)
    assert "No validation images of digits here" in test.warning[0].value and len(captions(test)) == 8


def test_what_was_drawn_can_be_downloaded(models):
    test = page("filters", models=RBM)
    assert [button.label for button in test.get("download_button")] == ["PNG"]


def test_without_models_it_says_what_to_do(empty_store):  # noqa: F811
    test = page("filters")
    assert not test.error and "`rbm`" in words(test) and "python -m pipelines train rbm" in words(test)
    assert not test.selectbox


def test_with_models_that_cannot_it_says_who_can(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "nade")
        test = page("filters")
    assert "None of the registered models (digits-nade) can" in words(test).replace("\\", "") and not test.selectbox
