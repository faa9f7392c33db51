"""What a user does with energy models in a real browser: watch chains wander, see units by their use, classify."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
import torch

from dashboard import chains
from gdm_core.data import load_dataset, treatment_for
from gdm_core.randomness import seeded_generator
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_browser import MILLISECONDS, address, browser, open_page, page, png, settled, sync_api  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("started")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store with two machines that have learnt a little; {architecture: address}."""
    folder = tmp_path_factory.mktemp("energy")
    with using(new_store(folder)):
        yield {name: register_model(folder, name, updates=40, learning_rate=0.1) for name in ("rbm", "label_rbm")}


@pytest.fixture(scope="module")
def started(browser, address) -> None:  # noqa: F811
    """The dashboard's first page has been seen, which on a busy machine takes its time."""
    first = browser.new_page()
    first.goto(address)
    first.get_by_test_id("stDataFrame").first.wait_for(timeout=120_000)
    first.close()


def choose(page, label: str) -> None:  # noqa: F811
    """Press one of the buttons that stand for choices."""
    page.get_by_test_id("stButtonGroup").get_by_role("radio", name=label).click()


def digits(split: str):
    """The stored images of a split, and how a binary model sees them."""
    data = load_dataset("digits")
    return data.splits[split].images, treatment_for(None, data.levels, "binary")


@torch.no_grad()
def test_chains_start_at_noise_and_are_followed_step_by_step(page, address, models):  # noqa: F811
    page.goto(f"{address}/chains?models=digits-rbm/1")
    ends = page.locator("img[alt^='chain '][alt$='of digits-rbm/1 after 200 steps']")
    ends.nth(15).wait_for()
    choose(page, "Noise")
    page.get_by_role("spinbutton", name="Chains").fill("3")
    page.keyboard.press("Enter")
    page.wait_for_url("**n=3**")
    sync_api.expect(ends).to_have_count(3, timeout=MILLISECONDS)
    settled(page)
    plot = page.locator(".js-plotly-plot").last
    curve = plot.evaluate("plot => plot.calcdata.at(-1).map(point => point.y)")  # the last line drawn: the mean energy

    model = tracking.load_model(models["rbm"])
    start = chains.noise(model, 3, 0)
    wander = itertools.islice(model.chain_steps(start, 1.0, seeded_generator(0, "chain")), 200)
    energies = [model.energy(x).mean().item() for x in (start, *wander)]
    assert curve == pytest.approx(energies, abs=1e-3)

    page.locator("input[aria-label='Step']").focus()
    page.keyboard.press("ArrowLeft")
    page.locator("img[alt='chain 3 of digits-rbm/1 after 196 steps']").wait_for()
    settled(page)
    page.goto(page.url)  # a link to this step
    page.locator("img[alt='chain 3 of digits-rbm/1 after 196 steps']").wait_for()
    settled(page)


@torch.no_grad()
def test_hidden_units_are_sorted_by_their_use(page, address, models):  # noqa: F811
    page.goto(f"{address}/filters?models=digits-rbm/1")
    units = page.get_by_alt_text(re.compile(r"^weights of unit \d+, \d"))
    sync_api.expect(units).to_have_count(8, timeout=MILLISECONDS)
    settled(page)
    images, treatment = digits("validation")
    own = tracking.load_model(models["rbm"]).hidden_layers(treatment(images))[0].mean(0)

    def shown() -> list[tuple[int, float]]:
        said = [re.findall(r"[\d.]+", one.get_attribute("alt")) for one in units.all()]
        return [(int(unit), float(use)) for unit, use in said]

    most = shown()
    uses = [use for _, use in most]
    assert uses == sorted(uses, reverse=True) and uses[0] > uses[-1]
    assert uses == pytest.approx([100 * own[unit].item() for unit, _ in most], abs=0.06)
    choose(page, "Least used first")
    page.wait_for_url("**order=Least**")
    sync_api.expect(units.first).to_have_attribute("alt", re.compile(rf"^weights of unit {most[-1][0]},"))
    settled(page)
    assert [unit for unit, _ in shown()] == [unit for unit, _ in most[::-1]]

    page.get_by_role("spinbutton", name="Unit (0 to 7)").fill("5")
    page.keyboard.press("Enter")
    page.get_by_alt_text("weights of unit 5, large").wait_for()
    page.get_by_alt_text(re.compile(r"^validation image \d+ switches unit 5 on")).first.wait_for()
    settled(page)


@torch.no_grad()
def test_an_uploaded_image_is_classified(page, address, models):  # noqa: F811
    open_page(page, "Classes")
    beliefs = page.locator(".belief")
    beliefs.nth(3).wait_for()
    settled(page)
    choose(page, "Upload")
    nine = load_dataset("digits").splits["test"].images[9]
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files([
        {"name": "nine.png", "mimeType": "image/png", "buffer": png(nine)},
    ])  # fmt: skip
    page.get_by_alt_text("nine.png as the model sees it").wait_for()
    sync_api.expect(beliefs).to_have_count(1, timeout=MILLISECONDS)
    settled(page)
    _, treatment = digits("test")
    own = tracking.load_model(models["label_rbm"]).class_log_prob(treatment(nine[None]))[0].exp()
    said = [float(re.sub("[<>%]", "", one.inner_text())) for one in beliefs.locator(".value").all()]
    assert said == pytest.approx((100 * own).tolist(), abs=0.11) and max(said) > 1.1 * min(said)
    assert beliefs.locator(".line").inner_text().startswith(f"{own.argmax().item()}: ")
    page.get_by_alt_text(re.compile(r"^sample 12 of class 0, seed 0")).wait_for()
    settled(page)
