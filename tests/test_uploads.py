"""What is said of an upload that is brought to another size or other colours."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import page, upload, words

SAID = "Brought to the size and colours of the models' images: "


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model for each page that takes uploads."""
    folder = tmp_path_factory.mktemp("uploads")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("label_rbm", "nade")}


def picture(mode: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


PAGES = [
    ("chains", {"models": "digits-label_rbm/1", "start": "Upload", "n": "1", "steps": "10"}),
    ("completion", {"models": "digits-nade/1", "image": "Upload", "n": "1"}),
    ("surprise", {"models": "digits-nade/1", "image": "Upload"}),
    ("classes", {"models": "digits-label_rbm/1", "image": "Upload"}),
]


@pytest.mark.parametrize(("name", "query"), PAGES)
def test_an_upload_of_another_size_is_said_to_be_scaled(models, name: str, query: dict):
    said = words(upload(page(name, **query), ("a.png", picture("RGB", (28, 40)))))
    assert SAID + "28x40 colour \u2192 8x8 grey; the rest of the frame is filled" in said


@pytest.mark.parametrize(("name", "query"), PAGES[:2])
def test_of_an_upload_that_is_as_the_model_takes_it_nothing_is_said(models, name: str, query: dict):
    assert SAID not in words(upload(page(name, **query), ("a.png", picture("L", (8, 8)))))


def test_a_square_that_is_scaled_has_no_frame_to_fill(models):
    said = words(upload(page(PAGES[1][0], **PAGES[1][1]), ("a.png", picture("L", (16, 16)))))
    assert SAID + "16x16 grey \u2192 8x8 grey." in said
