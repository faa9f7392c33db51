"""The Classes page without a browser, and what it rests on: classes as jobs, who draws classes, bars."""

from __future__ import annotations

import math
import re
import threading
from html import unescape

import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import Tensor

from dashboard.class_bars import MOST_BARS, Belief, belief_cards, in_words, percent, shown_classes
from dashboard.class_beliefs import PORTION, Measured, believing, drawing, draws_classes, knowing, measuring
from dashboard.gallery import Shown
from dashboard.jobs import Job
from gdm_core.contract import GenerativeModel
from gdm_core.data import load_dataset
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import empty_store, finished, page, png, upload, words  # noqa: F401
from tests.test_filters_page import html

MODEL = "label_rbm"
ADDRESS = f"digits-{MODEL}/1"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with a model that classifies and one that does not; {architecture: address}."""
    folder = tmp_path_factory.mktemp("classes")
    with using(new_store(folder)):
        labelled = register_model(folder, MODEL, updates=200, learning_rate=0.2)
        yield {"nade": register_model(folder, "nade"), MODEL: labelled}


def digits(rows: object, split: str = "test") -> Tensor:
    """Images of a split as models of binary pixels see them."""
    return (load_dataset("digits").splits[split].images[rows] >= 8).float()


def own(models: dict[str, str], x: Tensor) -> Tensor:
    """What the model itself says, (N, K)."""
    with torch.no_grad():
        return tracking.load_model(models[MODEL]).class_log_prob(x).double()


def values(test: AppTest) -> list[str]:
    """What stands beside each bar, in the order of the page."""
    return [unescape(value) for value in re.findall(r'<span class="value">([^<]+)</span>', html(test))]


class IgnoresLabels(GenerativeModel):
    """Says that of two classes every image is of the first, and draws what it likes whatever class is asked for."""

    def __init__(self) -> None:
        super().__init__((1, 2, 2), "binary", None)

    def class_log_prob(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, -torch.inf]).expand(len(x), 2)

    def sample(self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator=None) -> Tensor:
        return torch.zeros(n, 1, 2, 2)


class RefusesLabels(IgnoresLabels):
    def sample(self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator=None) -> Tensor:
        if labels is not None:
            raise ValueError("labels: this model does not model labels")
        return torch.zeros(n, 1, 2, 2)


# --- what is computed -------------------------------------------------------------------------------------------------


def test_classes_are_the_models_own_and_the_lock_is_held_for_a_few_images(models):
    model, lock, held = tracking.load_model(models[MODEL]), threading.Lock(), []

    class Watched:
        def class_log_prob(self, x: Tensor) -> Tensor:
            held.append((lock.locked(), len(x)))
            return model.class_log_prob(x)

    x = digits(slice(0, 2 * PORTION + 3))
    log_prob = believing(Watched(), lock, x)(Job("beliefs"))
    assert held == [(True, PORTION), (True, PORTION), (True, 3)]
    torch.testing.assert_close(log_prob, own(models, x), rtol=1e-5, atol=1e-5)
    assert log_prob.exp().sum(1).tolist() == pytest.approx([1.0] * len(x), abs=1e-5)


def test_accuracy_and_log_loss_are_means_with_standard_errors(models):
    x, labels = digits(slice(0, 40)), load_dataset("digits").splits["test"].labels[:40]
    measured = measuring(tracking.load_model(models[MODEL]), threading.Lock(), x, labels)(Job("test"))
    log_prob = own(models, x)
    correct = (log_prob.argmax(1) == labels).double().numpy()
    assert measured.accuracy == pytest.approx((correct.mean(), correct.std(ddof=1) / math.sqrt(40)))
    loss = -log_prob[torch.arange(40), labels].numpy()
    assert measured.log_loss == pytest.approx((loss.mean(), loss.std(ddof=1) / math.sqrt(40)), rel=1e-4)
    one = Measured(torch.tensor([True]), torch.tensor([0.5]).double())
    assert one.accuracy[0] == 1 and math.isnan(one.accuracy[1])


def test_who_draws_images_of_a_class(models):
    lock = threading.Lock()
    row_by_row = build_model("conditional_gated_pixel_cnn", (1, 2, 2), classes=3, channels=2, blocks=1)
    assert draws_classes(tracking.load_model(models[MODEL]), lock, 10) and draws_classes(row_by_row, lock, 3)
    assert not draws_classes(IgnoresLabels(), lock, 2) and not draws_classes(RefusesLabels(), lock, 2)
    known = knowing(IgnoresLabels(), lock)(Job("about"))
    assert known.classes == 2 and not known.draws_classes


def test_samples_of_a_class_are_the_models_own(models):
    model = tracking.load_model(models[MODEL])
    drawn = drawing(model, threading.Lock(), 5, 7, 3)(Job("samples"))
    with torch.no_grad():
        expected = model.sample(5, torch.full((5,), 7), generator=seeded_generator(3, "samples"))
    assert torch.equal(drawn.images, expected)
    torch.testing.assert_close(drawn.log_prob, own(models, expected), rtol=1e-5, atol=1e-5)


def test_percentages_never_claim_certainty():
    said = [percent(math.log(p)) for p in (0.9996, 0.9994, 0.5, 0.0006, 0.0004)]
    assert said == [">99.9%", "99.9%", "50.0%", "0.1%", "<0.1%"]
    assert percent(-math.inf) == "<0.1%" and percent(1e-9) == ">99.9%"


def test_the_words_say_how_sure_and_whether_it_is_so():
    shown, log_prob = Shown(b"", "an image", 10), torch.tensor([0.2, 0.7, 0.1]).log()
    names = ["cat", "dog", "<b>"]
    assert in_words(Belief(shown, log_prob), names) == "dog: 70.0%, log p = -0.357 nats"
    assert in_words(Belief(shown, log_prob, 1), names).endswith("; correct")
    assert in_words(Belief(shown, log_prob, 0), names).endswith("; truly cat")
    cards = belief_cards([Belief(shown, log_prob, 2)], names)
    assert "<b>" not in cards and "&lt;b&gt;" in cards and "line wrong" in cards
    assert re.findall(r"width: ([\d.]+)%\"></span>", cards) == ["20.00", "70.00", "10.00"]


def test_of_many_classes_the_likeliest_have_bars():
    log_prob = torch.arange(40.0).log_softmax(0)
    assert shown_classes(log_prob[:MOST_BARS]) == list(range(MOST_BARS))
    assert shown_classes(log_prob) == list(range(39, 39 - MOST_BARS, -1))


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_bars_are_the_models_own_probabilities(models):
    test = page("classes", number="11", n="3")
    assert not test.error and not test.warning
    log_prob = own(models, digits(slice(11, 14)))
    assert values(test) == [percent(float(value)) for value in log_prob.flatten()]
    labels = load_dataset("digits").splits["test"].labels[11:14].tolist()
    for row, label, number in zip(log_prob, labels, (11, 12, 13), strict=True):
        best = int(row.argmax())
        said = "correct" if best == label else f"truly {label}"
        assert f"{best}: {percent(float(row[best]))}, log p = {float(row[best]):.3g} nats; {said}" in html(test)
        assert f"test image {number} as the model sees it" in html(test)


def test_the_accuracy_is_that_of_the_test_split(models):
    test = page("classes")
    split = load_dataset("digits").splits["test"]
    right = (own(models, digits(slice(None))).argmax(1) == split.labels).double()
    error = float(right.std()) / math.sqrt(len(split))
    assert test.metric[0].value == f"{float(right.mean()):.1%} ± {error:.1%}"
    assert f"first {len(split)} of the {len(split)} images of the test split of digits" in words(test)
    assert "10.0% and 2.303 nats" in words(test)


def test_images_of_the_chosen_class_are_drawn_at_the_seed(models):
    test = page("classes", **{"class": "4", "seed": "9"})
    assert not test.error and html(test).count("of class 4, seed 9") == 12
    drawn = next(job.result for key, (_, job) in test.session_state["_jobs"]._jobs.items() if key == "classes samples")
    with torch.no_grad():
        model = tracking.load_model(models[MODEL])
        images = model.sample(12, torch.full((12,), 4), generator=seeded_generator(9, "samples"))
    assert torch.equal(drawn.images, images)
    said = [percent(float(value)) for value in own(models, images)[:, 4]]
    shown = re.findall(r"<figcaption>(.+?)</figcaption>", html(test))[-12:]
    assert [unescape(caption) for caption in shown] == said


def test_a_model_that_ignores_labels_shows_no_images_of_a_class(models, monkeypatch):
    from dashboard import class_beliefs

    monkeypatch.setattr(class_beliefs, "_takes", lambda *arguments: True)
    test = page("classes")
    assert not test.error and "draws no images of a chosen class" in words(test)
    assert "of class" not in html(test) and [box.label for box in test.selectbox] == ["Model"]


def test_uploads_are_classified(models):
    test = page("classes", image="Upload")
    assert "Upload images" in words(test) and not values(test)
    upload(test, ("nine.png", png(load_dataset("digits").splits["test"].images[9])))
    assert values(test) == [percent(float(value)) for value in own(models, digits([9]))[0]]
    assert "nine.png as the model sees it" in html(test) and "truly" not in html(test) and "correct" not in html(test)


def test_an_inverted_upload_is_noticed_and_can_be_turned(models):
    test = page("classes", image="Upload")
    upload(test, ("dark.png", png(16 - load_dataset("digits").splits["test"].images[9])))
    assert "look inverted" in test.warning[0].value
    choice = next(element for element in test.get("button_group") if element.key == "polarity")
    finished(choice.set_value("invert all").run())
    assert values(test) == [percent(float(value)) for value in own(models, digits([9]))[0]]


def test_a_broken_upload_is_one_sentence(models):
    test = page("classes", image="Upload")
    upload(test, ("text.png", b"no picture"))
    assert "text.png" in test.warning[0].value and not values(test) and not test.error


@pytest.mark.parametrize("sent", [{"number": "99999"}, {"n": "-1"}, {"class": "x"}, {"image": "?"}, {"models": "none"}])
def test_nonsense_in_the_address_is_dropped(models, sent):
    test = page("classes", **sent)
    assert not test.error and len(values(test)) >= 10


def test_without_models_it_says_what_to_do(empty_store):  # noqa: F811
    test = page("classes")
    assert not test.error and f"`{MODEL}`" in words(test) and "`rbm`" not in words(test) and not test.selectbox


def test_with_models_that_cannot_it_says_who_can(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "nade")
        test = page("classes")
    assert "None of the registered models (digits-nade) can" in words(test).replace("\\", "") and not test.selectbox
