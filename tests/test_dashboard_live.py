"""The pages that run models, without a browser: samples, interpolation, anomalies; what is on screen is what is so."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import nn

from dashboard.scoring import Picture, subject
from dashboard.views import interpolate
from gdm_core.anomaly import benjamini_hochberg, p_values, score_images, verdicts
from gdm_core.data import load_dataset, to_picture
from gdm_core.registry import build_model
from pipelines import tracking
from tests.live_models import CALIBRATION_IMAGES, register_model
from tests.stores import new_store, using

SECONDS = 30


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with models of all abilities; {architecture: address}."""
    folder = tmp_path_factory.mktemp("live")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("independent_bernoulli", "dcgan", "pixel_cnn", "vae")}


@pytest.fixture
def empty_store(tmp_path):
    with using(new_store(tmp_path)):
        yield


def page(name: str, **query: object) -> AppTest:
    """A page as a fresh browser session sees it."""

    def script(name: str) -> None:
        from dashboard import page

        page.show(next(entry for entry in page.PAGES if entry.name == name))

    test = AppTest.from_function(script, args=(name,), default_timeout=SECONDS)
    for key, value in query.items():
        test.query_params[key] = value
    return finished(test.run())


def finished(test: AppTest) -> AppTest:
    """The page once its background jobs are done."""
    jobs = test.session_state["_jobs"] if "_jobs" in test.session_state else None
    for _, job in (jobs._jobs if jobs else {}).values():
        assert job.wait(SECONDS)
    test.run()
    assert not test.exception
    return test


def words(test: AppTest) -> str:
    """All that the page says."""
    kinds = (test.markdown, test.caption, test.info, test.warning, test.error, test.subheader)
    return "\n".join(str(element.value) for elements in kinds for element in elements)


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    to_picture(image.double() / 16).save(buffer, "PNG")
    return buffer.getvalue()


def upload(test: AppTest, *files: tuple[str, bytes]) -> AppTest:
    for name, data in files:
        test.file_uploader[0].upload(name, data, "application/octet-stream")
    return finished(test)


# --- every page with nothing registered -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["samples", "interpolate", "anomalies"])
def test_empty_stores_say_what_to_do(empty_store, name):
    test = page(name)
    assert not test.error and "python -m pipelines train" in words(test)


@pytest.mark.parametrize("name", ["samples", "interpolate", "anomalies"])
def test_a_model_that_is_gone_is_named(models, name):
    test = page(name, models=["digits-vae/1", "digits-gone/7"])
    assert not test.error and "digits-gone/7: not among the registered versions" in test.warning[0].value
    assert test.multiselect(key="models").value == ["digits-vae/1"]


# --- samples ----------------------------------------------------------------------------------------------------------


def test_samples_show_a_grid_for_each_model_with_one_seed(models):
    test = page("samples", n="4", seed="3")
    assert not test.error
    assert [button.label for button in test.get("download_button")].count("PNG") == 4
    assert "All grids as one PNG" in [button.label for button in test.get("download_button")]
    assert test.number_input(key="n").value == 4 and test.number_input(key="seed").value == 3
    results = {key: job.result for key, (_, job) in test.session_state["_jobs"]._jobs.items()}
    assert len(results) == 4 and all(images.shape == (4, 1, 8, 8) for images in results.values())


def test_samples_repeat_with_the_seed_and_equal_the_models_own(models):
    from gdm_core.randomness import seeded_generator

    def drawn(seed: int) -> torch.Tensor:
        test = page("samples", models="digits-pixel_cnn/1", n="5", seed=str(seed))
        return next(job.result for _, job in test.session_state["_jobs"]._jobs.values())

    own = tracking.load_model(models["pixel_cnn"]).sample(5, generator=seeded_generator(3, "samples"))
    assert torch.equal(drawn(3), own) and torch.equal(drawn(3), own) and not torch.equal(drawn(4), own)


def test_a_new_seed_draws_anew(models):
    test = page("samples", models="digits-vae/1", n="4")
    before = next(job for _, job in test.session_state["_jobs"]._jobs.values())
    finished(next(button for button in test.button if button.label == "Sample").click().run())
    after = next(job for _, job in test.session_state["_jobs"]._jobs.values())
    assert test.number_input(key="seed").value != 0 and not torch.equal(before.result, after.result)


def test_a_model_with_a_broken_file_is_named_and_the_others_go_on(models, tmp_path):
    with using(new_store(tmp_path)):
        address = register_model(tmp_path, "vae")
        register_model(tmp_path, "independent_bernoulli")
        path = tracking.version_files(address)["model.safetensors"]
        path.write_bytes(b"nonsense" + path.read_bytes()[8:])
        test = page("samples", n="4")
        assert len(test.error) == 1 and "digits" in test.error[0].value and "Traceback" not in test.error[0].value
        assert len(test.session_state["_jobs"]._jobs) == 1


# --- interpolation ----------------------------------------------------------------------------------------------------


def test_interpolation_offers_what_each_model_can(models):
    test = page("interpolate")
    assert test.multiselect(key="models").options == ["digits-vae/1", "digits-dcgan/1"]
    assert "digits-pixel" in words(test).replace("\\", "") and "encoder" not in words(test)
    assert not test.error and not test.warning


def test_a_decoder_alone_is_not_asked_for_an_image_s_code(monkeypatch):
    said = []
    monkeypatch.setattr(interpolate.st, "caption", said.append)
    pairs = [(SimpleNamespace(name=name, version=1), SimpleNamespace(model=model))
             for name, model in (("vae", build_model("vae", (1, 8, 8))), ("plain", DecoderAlone()))]  # fmt: skip
    assert interpolate._with_encoder(pairs) == pairs[:1]
    assert "for lack of an encoder: plain/1" in said[0]


class DecoderAlone(nn.Module):
    """A GAN without an encoder."""

    def decode(self, z):
        return z

    def sample_latent(self, n, generator=None):
        return torch.zeros(n, 1)


@pytest.mark.parametrize("between", ["Two random points", "Random walk"])
def test_random_codes_need_no_encoder(models, between):
    test = page("interpolate", between=between, seed="2")
    downloads = [button.label for button in test.get("download_button")]
    assert downloads == (["PNG"] * 2 if between == "Two random points" else ["GIF", "Filmstrip"] * 2)
    assert "encoder" not in words(test) and not test.error


def test_interpolation_between_two_uploads(models):
    digits = load_dataset("digits").splits["test"].images
    test = page("interpolate", between="Two uploads")
    assert "Upload two images" in words(test)
    upload(test, ("broken.png", b"\x89PNG nonsense"), ("a.png", png(digits[0])))
    assert "broken.png" in test.warning[0].value and "Upload one more image" in words(test)
    upload(test, ("a.png", png(digits[0])), ("b.png", png(digits[1])))
    assert [button.label for button in test.get("download_button")] == ["PNG"] * 2


def test_without_a_latent_space_it_says_who_has_one(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "independent_bernoulli")
        test = page("interpolate")
    assert "`vae`" in words(test) and "`dcgan`" in words(test) and not test.multiselect


# --- anomalies ----------------------------------------------------------------------------------------------------


def shown(test: AppTest):
    """The table on screen."""
    return test.dataframe[0].value


def test_p_values_and_verdicts_on_screen_are_the_librarys(models):
    data = load_dataset("digits")
    odd = numpy.random.default_rng(0).integers(0, 17, (8, 8)).astype(numpy.uint8)
    uploads = [*data.splits["test"].images[:3], torch.from_numpy(odd).unsqueeze(0)]
    test = page("anomalies", models="digits-independent_bernoulli/1", rate="5")
    upload(test, *((f"{i}.png", png(x)) for i, x in enumerate(uploads)))
    frame = shown(test).sort_values("image")
    registered = tracking.load_registered(models["independent_bernoulli"])
    scores = score_images(registered.model, "likelihood", registered.treatment(torch.stack(uploads)))
    p = p_values(scores, registered.calibration["score.likelihood"])
    assert list(frame["image"]) == [f"{i}.png" for i in range(4)]
    assert list(frame["score"]) == scores.tolist() and list(frame["p-value"]) == p.tolist()
    flags = ["flagged" if flag else "not flagged" for flag in verdicts(p, 0.05)]
    assert list(frame["verdict"]) == flags and flags[-1] == "flagged"
    assert f"{flags.count('flagged')} of 4 images flagged" in words(test)


def test_bad_uploads_get_a_sentence_each_and_the_rest_goes_on(models):
    good = png(load_dataset("digits").splits["test"].images[0])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("inside.png", good)
        packed.writestr("../outside.png", good)
        packed.writestr("text.txt", b"hello there")
    files = ("good.png", good), ("empty.png", b""), ("note.txt", b"hello"), ("many.zip", archive.getvalue())
    test = upload(page("anomalies"), *files)
    assert sorted(shown(test)["image"]) == ["good.png", "many.zip/inside.png"]
    problems = [warning.value.replace("\\", "") for warning in test.warning]
    assert len(problems) == 4
    for name in ("empty.png", "note.txt", "many.zip/../outside.png", "many.zip/text.txt"):
        assert sum(problem.startswith(name) for problem in problems) == 1


def test_one_score_in_any_company(models):
    images = load_dataset("digits").splits["test"].images
    alone = shown(upload(page("anomalies", models="digits-vae/1"), ("a.png", png(images[0]))))
    company = [(f"{name}.png", png(image)) for name, image in zip("bac", images[[1, 0, 2]], strict=True)]
    together = shown(upload(page("anomalies", models="digits-vae/1"), *company))
    assert alone["score"].tolist() == together[together["image"] == "a.png"]["score"].tolist()


def test_benjamini_hochberg_switch(models):
    test = page("anomalies", models="digits-independent_bernoulli/1", rate="10")
    frame = shown(test)
    p = torch.tensor(frame["p-value"].to_numpy())
    assert list(frame["verdict"] == "flagged") == verdicts(p, 0.1).tolist()
    finished(test.toggle(key="fdr").set_value(True).run())
    frame = shown(test)
    p = torch.tensor(frame["p-value"].to_numpy())
    assert list(frame["verdict"] == "flagged") == benjamini_hochberg(p, 0.1).tolist()
    assert "expected share" in words(test)


def test_too_small_rates_are_named(models):
    test = page("anomalies", rate="0.5")
    assert any("nothing can be flagged" in warning.value for warning in test.warning)
    assert page("anomalies").number_input(key="rate").value == pytest.approx(100 / (1 + CALIBRATION_IMAGES), abs=0.01)
    assert not page("anomalies").warning  # the usual rate is one that means something


def test_inverted_images_are_noticed_and_turned_on_request(models):
    image = load_dataset("digits").splits["test"].images[0]
    files = ("white.png", png(16 - image)), ("black.png", png(image))
    test = upload(page("anomalies", models="digits-independent_bernoulli/1"), *files)
    assert "1 of 2 images look inverted" in test.warning[0].value
    before = shown(test).set_index("image")["score"]
    assert before["white.png"] > before["black.png"]
    choice = next(element for element in test.get("button_group") if element.key == "polarity")
    finished(choice.set_value("invert those that look inverted").run())
    after = shown(test).set_index("image")["score"]
    assert after["white.png"] == after["black.png"] == before["black.png"]


def test_several_models_make_a_table_of_all_verdicts(models):
    test = page("anomalies", models=["digits-independent_bernoulli/1", "digits-vae/1", "digits-dcgan/1"])
    frame = shown(test)
    assert [name for name in frame.columns if " · " in name] == [
        "digits-independent_bernoulli/1 · likelihood", "digits-vae/1 · bound", "digits-dcgan/1 · reconstruction",
    ]  # fmt: skip
    assert all(value.endswith(" of 3") for value in frame["flagged by"])


def test_a_model_without_calibration_says_so(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "vae", with_calibration=False)
        test = page("anomalies")
    assert "without calibration" in words(test) and not test.dataframe and not test.error


def test_sessions_do_not_share_uploads(models):
    upload(page("anomalies"), ("secret.png", png(load_dataset("digits").splits["test"].images[5])))
    other = page("anomalies")
    assert "secret.png" not in shown(other)["image"].tolist() and "secret.png" not in words(other)


def test_uploads_are_never_written_to_disk(models, monkeypatch, tmp_path):
    written = []
    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: written.append(self) or original(self, data))
    monkeypatch.setattr(Image.Image, "save", _only_to_memory(Image.Image.save))
    upload(page("anomalies"), ("a.png", png(load_dataset("digits").splits["test"].images[5])))
    assert not written


def _only_to_memory(save):
    def checked(self, target, *arguments, **named):
        assert isinstance(target, io.BytesIO)
        return save(self, target, *arguments, **named)

    return checked


def test_a_picture_holds_no_more_than_is_needed(models):
    from dashboard.scoring import read_pictures

    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000), "white").save(buffer, "PNG")
    registered = tracking.load_registered(models["vae"])
    form = subject("vae", models["vae"], registered, None).format
    (picture,), problems = read_pictures([("large.png", buffer.getvalue())], [form])
    assert isinstance(picture, Picture) and not problems and picture.size == (3000, 2000)
    assert max(picture.thumbnail.size) <= 192 and picture.stored[form].shape == (1, 8, 8)
