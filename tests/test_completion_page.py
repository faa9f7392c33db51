"""The Completion page without a browser, and what it rests on: masks, completions as a job, the brush's messages."""

from __future__ import annotations

import io
import threading

import numpy
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import Tensor

from dashboard import completing, images, masks
from dashboard.completing import FRAMES, PORTION, Completions, Film, why
from dashboard.jobs import Cancelled, Job
from gdm_core.contract import CompletesStepwise, ExactLikelihood, has
from gdm_core.data import load_dataset
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import finished_run, new_store, using
from tests.test_dashboard_live import empty_store, finished, page, png, upload, words  # noqa: F401

MODELS = ("nade", "pixel_cnn", "rbm")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with models that complete, in each way, and one that does not; {architecture: address}."""
    folder = tmp_path_factory.mktemp("completion")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in (*MODELS, "vae")}


def digit(number: int) -> Tensor:
    """A test image as the models see it, (1, 8, 8)."""
    return (load_dataset("digits").splits["test"].images[number] >= 8).float()


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (5, 3), (1, 4), (1, 1)])
def test_masks_hide_what_their_names_say(height, width):
    hidden = {name: masks.preset(name, height, width) for name in masks.PRESETS}
    assert all(mask.shape == (height, width) and mask.dtype == torch.bool for mask in hidden.values())
    half = max(1, height // 2)
    assert hidden[masks.TOP].any(1).tolist() == [row < half for row in range(height)]
    assert torch.equal(hidden[masks.BOTTOM], hidden[masks.TOP].flip(0))
    assert torch.equal(hidden[masks.RIGHT], hidden[masks.LEFT].flip(1))
    assert torch.equal(hidden[masks.LEFT], masks.preset(masks.TOP, width, height).T)
    assert hidden[masks.MIDDLE].sum() == half * max(1, width // 2) and hidden[masks.EVERYTHING].all()
    assert not (hidden[masks.EVERY_OTHER][1:] == hidden[masks.EVERY_OTHER][:-1]).any()


def test_the_square_is_in_the_middle():
    mask = masks.preset(masks.MIDDLE, 8, 12)
    assert torch.equal(mask, mask.flip(0)) and torch.equal(mask, mask.flip(1))


def test_a_larger_share_hides_more_and_reveals_nothing():
    shares = [masks.preset(masks.RANDOM, 7, 9, share) for share in (0.05, 0.3, 0.9)]
    assert [int(mask.sum()) for mask in shares] == [3, 19, 57]
    assert not (shares[0] & ~shares[1]).any() and not (shares[1] & ~shares[2]).any()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (3, 3), (5, 7), (1, 1)])
def test_a_mask_comes_back_from_its_text(height, width):
    for mask in torch.rand(20, height, width, generator=seeded_generator(0)) < 0.4:
        assert torch.equal(masks.from_text(masks.to_text(mask), height, width), mask)


@pytest.mark.parametrize("text", ["", "0", "0000", "g00", "0 0", "-00", "001", "00F", "<b>", "0" * 300])
def test_what_is_no_mask_is_refused(text):
    assert masks.from_text(text, 3, 3) is None  # nine pixels: three digits, the last one's lower three bits unused
    assert masks.from_text("008", 3, 3).sum() == 1 and masks.from_text("800", 3, 3)[0, 0]


def test_covering_changes_unknown_pixels_alone():
    image, mask = torch.rand(1, 4, 5), masks.preset(masks.EVERY_OTHER, 4, 5)
    blue = torch.tensor([0x3B, 0x7D, 0xD8]) / 255
    shown = masks.covered(image, mask)
    assert torch.equal(shown[:, ~mask], image.expand(3, -1, -1)[:, ~mask])
    torch.testing.assert_close(shown[:, mask], blue[:, None].expand(-1, 10))
    halfway = masks.tinted(torch.stack([image, image]), mask, 0.5)[1]
    torch.testing.assert_close(halfway, (image.expand(3, -1, -1) + shown) / 2)


def test_a_film_moves_once_and_loses_nothing():
    frames = torch.randint(0, 256, (5, 3, 6, 7), generator=seeded_generator(0)) / 255
    with Image.open(io.BytesIO(images.film(frames, 1.0))) as film:
        assert film.n_frames == 5 and film.info["loop"] == 1
        for place, frame in enumerate(frames):
            film.seek(place)
            assert torch.equal(torch.tensor(numpy.array(film.convert("RGB"))).permute(2, 0, 1) / 255, frame)
            assert film.info["duration"] == 200


# --- the job ----------------------------------------------------------------------------------------------------------


class Watched(Job):
    """A job that notes its reports, and whether the model was free while it made them."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__("completion")
        self.lock, self.seen = lock, []

    def report(self, progress: float, preview: Tensor | None = None) -> None:
        assert not self.lock.locked()
        super().report(progress, preview)
        if preview is not None:
            self.seen.append((self.progress, preview))


def completed(model, x: Tensor, unknown: Tensor, n: int, seed: int = 3) -> tuple[Completions, list]:
    lock = threading.Lock()
    job = Watched(lock)
    return completing.completing(model, lock, x, unknown, n, seed, 1.0)(job), job.seen


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hidden", [masks.BOTTOM, masks.LEFT, masks.EVERYTHING])
def test_completions_are_the_models_own(models, name, hidden):
    """Those of `complete` from the same seed: all at once where they form step by step exactly, else in portions."""
    model, x, unknown = tracking.load_model(models[name]), digit(3), masks.preset(hidden, 8, 8)
    done, seen = completed(model, x, unknown, 6)
    exact = has(model, CompletesStepwise) and model.completion_is_exact(masks.known_of(unknown))
    own = [
        model.complete(
            x.expand(count, 1, 8, 8), masks.known_of(unknown), generator=seeded_generator(3, "completion", start)
        )
        for start, count in ([(0, 6)] if exact else [(0, PORTION), (PORTION, 2)])
    ]
    assert torch.equal(done.images, torch.cat(own))
    assert torch.equal(done.images[:, :, ~unknown], x.expand(6, 1, 8, 8)[:, :, ~unknown])
    assert not torch.equal(done.images[0], done.images[5])
    assert torch.equal(completed(model, x, unknown, 6)[0].images, done.images)
    assert not torch.equal(completed(model, x, unknown, 6, seed=4)[0].images, done.images)
    assert [progress for progress, _ in seen] == sorted(progress for progress, _ in seen) and seen[-1][0] < 1
    assert torch.equal(seen[-1][1], done.images)


@pytest.mark.parametrize(("name", "steps"), [("nade", 64), ("pixel_cnn", 64), ("rbm", 2)])
def test_the_model_is_free_after_every_step(models, name, steps):
    """64 pixels, or two portions: `Watched` finds the lock free at each report."""
    _, seen = completed(tracking.load_model(models[name]), digit(0), masks.preset(masks.BOTTOM, 8, 8), 6)
    assert len(seen) == steps


def test_the_film_shows_the_completion_form(models):
    model, x, unknown = tracking.load_model(models["nade"]), digit(1), masks.preset(masks.BOTTOM, 8, 8)
    for hidden in (unknown, masks.preset(masks.LEFT, 8, 8)):
        frames = completed(model, x, hidden, 6)[0].frames
        assert 2 < len(frames) <= FRAMES + 16 and frames.shape[1:] == (6, 1, 8, 8)
        assert not any(earlier.equal(later) for earlier, later in zip(frames, frames[1:], strict=False))
    done = completed(model, x, unknown, 6)[0]
    assert torch.equal(done.frames[-1], done.images) and not done.frames[0][:, :, unknown].any()


def test_a_long_film_is_thinned_and_a_short_one_stands_still_at_its_end():
    long, short = Film(480), Film(480)
    for step in range(480):
        long.add(torch.full((2, 1, 1, 1), step // 2))  # every second step changes nothing
    for step in range(3):
        short.add(torch.full((1, 1, 1, 1), -step))
    assert (long.share, short.share) == (1.0, 3 / 480)
    frames = completing._together([long, short]).squeeze()  # (T, 3)
    assert FRAMES <= len(frames) <= FRAMES + 1 and frames[-1].tolist() == [239, 239, -2]
    assert frames[0].tolist() == [0, 0, 0] and frames[1].tolist() == [5, 5, -2]


def test_a_model_without_steps_has_one_frame(models):
    done, _ = completed(tracking.load_model(models["rbm"]), digit(1), masks.preset(masks.TOP, 8, 8), 6)
    assert len(done.frames) == 1 and torch.equal(done.frames[0], done.images)


@pytest.mark.parametrize("name", MODELS)
def test_the_likelihoods_are_the_models_own(models, name):
    model, x = tracking.load_model(models[name]), digit(2)
    done, _ = completed(model, x, masks.preset(masks.MIDDLE, 8, 8), 5)
    if not has(model, ExactLikelihood):
        assert done.log_prob is None and done.original is None
        return
    with torch.no_grad():
        torch.testing.assert_close(done.log_prob, model.log_prob(done.images))
        assert done.original == pytest.approx(float(model.log_prob(x[None])))


def test_a_cancelled_job_ends_at_its_next_step(models):
    job = Job("completion")
    job.cancel()
    work = completing.completing(tracking.load_model(models["nade"]), threading.Lock(), digit(0),
                                 masks.preset(masks.BOTTOM, 8, 8), 2, 0, 1.0)  # fmt: skip
    with pytest.raises(Cancelled):
        work(job)


def test_it_is_said_why_a_completion_is_exact_or_not(models):
    nade, rbm = (tracking.load_model(models[name]) for name in ("nade", "rbm"))
    below, above = masks.preset(masks.BOTTOM, 8, 8), masks.preset(masks.TOP, 8, 8)
    assert why(nade, below)[0] and not why(nade, above)[0] and not why(rbm, below)[0]
    assert "p(unknown | known)" in why(nade, below)[1] and "order" in why(nade, above)[1]
    assert "Markov chain" in why(rbm, below)[1] and "nothing to draw" in why(nade, torch.zeros(8, 8).bool())[1]
    assert why(build_model("independent_bernoulli", (1, 8, 8)), above)[0]
    assert "p(unknown | known, class)" in why(nade, below, of_class=True)[1]


def test_of_a_model_without_an_order_it_is_said_whose_conditional_is_drawn():
    """EoNADE puts the known pixels first: exact, but for that order and not for the mixture that log p is of."""
    eonade, many = build_model("eonade", (1, 8, 8), hidden_units=3), build_model("made", (1, 8, 8), orderings=2)
    for preset in (masks.TOP, masks.BOTTOM, masks.EVERY_OTHER):
        exact, words = why(eonade, masks.preset(preset, 8, 8))
        assert exact and "in such an order" in words and "Other orders may disagree" in words
    exact, words = why(many, masks.preset(masks.EVERYTHING, 8, 8))
    assert exact and "order" not in words
    assert "nothing to draw" in why(eonade, torch.zeros(8, 8).bool())[1]


# --- the page ---------------------------------------------------------------------------------------------------------


def results(test: AppTest) -> dict[str, Completions]:
    """{model: what its job made} of a page."""
    jobs = test.session_state["_jobs"]._jobs
    return {key.split("/")[1]: job.result for key, (_, job) in jobs.items()}


def downloads(test: AppTest) -> int:
    return [button.label for button in test.get("download_button")].count("PNG")


def test_the_page_completes_with_every_model_that_can(models):
    test = page("completion")
    assert not test.error and not test.warning
    assert set(test.multiselect(key="models").value) == {f"digits-{name}/1" for name in MODELS}
    assert test.multiselect(key="models").value[-1] == "digits-rbm/1"  # those that can be watched come first
    assert "cannot fill in missing pixels: digits-vae" in words(test) and downloads(test) == 3
    assert words(test).count(":green-badge[") == 2 and words(test).count(":orange-badge[") == 1
    below = masks.preset(masks.BOTTOM, 8, 8)
    for done in results(test).values():
        assert torch.equal(done.images[:, :, ~below], digit(0).expand(8, 1, 8, 8)[:, :, ~below])


def test_an_address_restores_the_view(models):
    test = page("completion", models="digits-nade/1", number="7", hidden=masks.RANDOM, share="25", n="3", seed="5",
                temperature="0.5", film="false", tint="false")  # fmt: skip
    own = completing.completing(tracking.load_model(models["nade"]), threading.Lock(), digit(7),
                                masks.preset(masks.RANDOM, 8, 8, 0.25), 3, 5, 0.5)  # fmt: skip
    assert torch.equal(results(test)["digits-nade"].images, own(Job("again")).images)
    assert [toggle.value for toggle in test.toggle] == [False, False]


def test_a_tempered_completion_is_not_exact(models):
    assert ":green-badge[" in words(page("completion", models="digits-nade/1"))
    tempered = words(page("completion", models="digits-nade/1", temperature="0.5"))
    assert ":green-badge[" not in tempered and ":orange-badge[" in tempered and "temperature" in tempered


def test_an_address_restores_a_painted_mask(models):
    mask = torch.rand(8, 8, generator=seeded_generator(1)) < 0.3
    test = page("completion", models="digits-nade/1", hidden="painted", pixels=masks.to_text(mask))
    images = results(test)["digits-nade"].images
    assert torch.equal(images[:, :, ~mask], digit(0).expand(8, 1, 8, 8)[:, :, ~mask])
    assert not torch.equal(images[:, :, mask], digit(0).expand(8, 1, 8, 8)[:, :, mask])
    assert "".join(test.query_params["pixels"]) == masks.to_text(mask)
    test.button_group(key="hidden").set_value(masks.TOP)
    assert "pixels" not in finished(test.run()).query_params
    test.button_group(key="hidden").set_value("painted")
    assert "".join(finished(test.run()).query_params["pixels"]) == masks.to_text(mask)  # it was not lost


def test_nonsense_in_the_address_is_dropped(models):
    test = page("completion", models="nonsense", number="-4", hidden="painted", pixels="<script>", n="x", image="y")
    assert not test.error and "pixels" not in test.query_params and len(results(test)) == 3


def test_without_models_it_says_what_to_do(empty_store):  # noqa: F811
    test = page("completion")
    assert not test.error and "`nade`" in words(test) and "`rbm`" in words(test)
    assert "python -m pipelines train nade" in words(test) and not test.multiselect


def test_with_models_that_cannot_it_says_who_can(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "vae")
        test = page("completion")
    assert "None of the registered models (digits-vae) can" in words(test).replace("\\", "")
    assert "`pixel_cnn`" in words(test) and not test.multiselect and not test.error


def test_a_model_that_is_gone_is_named(models):
    test = page("completion", models=["digits-nade/1", "digits-gone/7"])
    assert not test.error and "digits-gone/7: not among the registered versions" in test.warning[0].value


def test_models_of_another_image_size_are_named(tmp_path):
    with using(new_store(tmp_path)):
        register_model(tmp_path, "nade")
        finished_run(tmp_path / "tiny")
        test = page("completion", models=["digits-nade/1", "digits-independent_bernoulli/1"])
    assert "not 1 x 8 x 8 as those of digits-nade/1: digits-independent" in words(test).replace("\\", "")
    assert not test.error and set(results(test)) == {"digits-nade"}


def test_an_upload_is_completed(models):
    test = page("completion", models="digits-nade/1", image="Upload")
    assert "Upload an image" in words(test) and not downloads(test)
    upload(test, ("broken.png", b"\x89PNG nonsense"))
    assert len(test.warning) == 1 and "broken.png" in test.warning[0].value and not downloads(test)
    stored = load_dataset("digits").splits["test"].images[9]
    upload(test, ("nine.png", png(stored)))
    below = masks.preset(masks.BOTTOM, 8, 8)
    images = results(test)["digits-nade"].images
    assert torch.equal(images[:, :, ~below], digit(9).expand(8, 1, 8, 8)[:, :, ~below]) and not test.warning


def test_an_inverted_upload_can_be_turned(models):
    stored = load_dataset("digits").splits["test"].images[9]
    test = upload(page("completion", models="digits-nade/1", image="Upload"), ("nine.png", png(16 - stored)))
    assert "looks inverted" in test.warning[0].value
    finished(test.toggle(key="invert").set_value(True).run())
    below = masks.preset(masks.BOTTOM, 8, 8)
    assert torch.equal(results(test)["digits-nade"].images[0][:, ~below], digit(9)[:, ~below])


# --- the brush --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [
    None, "text", {}, {"unknown": "8" * 16}, {"unknown": 7, "stroke": 1}, {"unknown": "zz", "stroke": 1},
    {"unknown": "0" * 17, "stroke": 1}, {"unknown": "0" * 16, "stroke": "1"},
])  # fmt: skip
def test_the_brush_takes_masks_alone(sent, monkeypatch):
    assert strokes(sent, monkeypatch) == ([], {})


def test_a_stroke_hands_on_its_mask(monkeypatch):
    taken, kept = strokes({"unknown": "8" + 15 * "0", "stroke": 4}, monkeypatch)
    assert taken[0].nonzero().tolist() == [[0, 0]] and kept == {"_stroke": 4}


def strokes(sent: object, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], dict]:
    """What the page gets of a message from the browser, and what the session keeps of it."""
    from dashboard import brush

    session: dict = {"brush": {"painted": sent}}
    monkeypatch.setattr(brush.st, "session_state", session)
    taken: list[Tensor] = []
    brush._take("brush", 8, 8, taken.append)
    return taken, {key: value for key, value in session.items() if key != "brush"}


def test_the_canvas_gets_each_pixels_colour():
    from dashboard.brush import _colours

    assert _colours(torch.tensor([[[0.0, 1.0], [0.5, 1 / 3]]])) == "000000" + "ffffff" + "808080" + "555555"
    assert _colours(torch.tensor([[[1.0]], [[0.0]], [[0.2]]])) == "ff0033"
