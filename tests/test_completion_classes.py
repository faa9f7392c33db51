"""Completions of a class: asked of the models whose `complete` takes labels, and of any class by the others."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from dashboard.completing import PORTION, classes_of, completing
from dashboard.jobs import Job
from gdm_core.data import load_dataset
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import finished, page, words
from tests.test_gated_pixel_cnn import conditional_model

MACHINE, NADE = "digits-label_rbm/1", "digits-nade/1"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("label_rbm", "nade")}


def test_who_completes_images_of_a_class():
    for name in ("label_rbm", "conditional_gated_pixel_cnn"):
        assert classes_of(build_model(name, (1, 3, 3), classes=4)) == 4
    assert classes_of(build_model("rbm", (1, 3, 3))) == classes_of(build_model("nade", (1, 3, 3))) == 0


def test_the_page_holds_the_class_that_is_asked_for(models):
    test = page("completion", models=[MACHINE, NADE], n="3")
    assert test.selectbox(key="class").options == ["any", *map(str, range(10))] and "class any" not in words(test)
    free = test.session_state["_jobs"].get(f"completion {models['label_rbm']}").result.images
    finished(test.selectbox(key="class").select("7").run())
    assert "· class 7]" in words(test) and "· class any]" in words(test)
    held = test.session_state["_jobs"].get(f"completion {models['label_rbm']}").result.images
    model, test_set = tracking.load_model(models["label_rbm"]), load_dataset("digits").splits["test"]
    x, unknown = (test_set.images[0] >= 8).float(), torch.arange(8)[:, None].expand(8, 8) >= 4
    for label, images in ((None, free), (7, held)):
        own = completing(model, nullcontext(), x, unknown, 3, 0, 1.0, label)(Job("completion")).images
        assert torch.equal(own, images)
    assert not torch.equal(free, held)


@pytest.mark.parametrize(("unknown", "portion"), [(torch.arange(3) == 2, 60), (torch.arange(3) == 0, PORTION)])
def test_a_class_is_held_step_by_step_too(unknown, portion):
    """Drawn exactly, and chosen from candidates, which is done a few images at a time."""
    model, x = conditional_model((1, 3, 3)).float(), torch.ones(1, 3, 3)
    mask = unknown[:, None].expand(3, 3)
    found = [completing(model, nullcontext(), x, mask, 60, 0, 1.0, label)(Job("completion")) for label in (0, 1)]
    assert len(found[0].frames) > 1 and not torch.equal(found[0].images, found[1].images)
    for label, completions in enumerate(found):
        labels, generator = torch.full((portion,), label), seeded_generator(0, "completion", 0)
        own = model.complete(x.expand(portion, 1, 3, 3), ~mask[None, None], generator=generator, labels=labels)
        assert torch.equal(completions.images[:portion], own)


def test_models_without_classes_are_asked_for_none(models):
    test = page("completion", models=NADE, n="2")
    assert "class" not in [box.key for box in test.selectbox]
