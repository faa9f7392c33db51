"""Pictures as HTML: what a heat map's legend says is so, small red text can be read, films can rest."""

from __future__ import annotations

import html
import re
import tomllib

import pytest
import torch

from dashboard import images
from dashboard.class_bars import Belief, belief_cards
from dashboard.gallery import Card, Shown, gallery, map_legend, strip
from gdm_core.anomaly import fit_map_scale, normalise_map
from tests.test_browser import ROOT, browser  # noqa: F401

READABLE = 4.5  # WCAG 2: the contrast that small text needs
PIXEL = images.image_png(torch.zeros(1, 1, 1), 8)
FILM = images.film(torch.linspace(0, 1, 5).view(5, 1, 1, 1), 1.0)


# --- what the legend says ---------------------------------------------------------------------------------------------


def words(markup: str) -> str:
    """The text of HTML, without its style."""
    text = re.sub(r"<[^>]*>", "", re.sub(r"<style>.*?</style>", "", markup, flags=re.DOTALL))
    return html.unescape(" ".join(text.split()))


@pytest.mark.parametrize("count", [60, 98])
def test_few_calibration_images_light_only_what_is_stranger_than_all_of_them(count: int) -> None:
    maps = torch.rand(count, 4, 4)
    assert (normalise_map(maps, fit_map_scale(maps)) <= 1).all()  # not one pixel of them, at any place
    said = words(map_legend(count))
    assert f"no stranger than the strangest place of all {count} normal images" in said and "%" not in said


@pytest.mark.parametrize("count", [99, 400])
def test_enough_calibration_images_light_one_percent_at_each_place(count: int) -> None:
    maps = torch.rand(count, 4, 4)
    lit = (normalise_map(maps, fit_map_scale(maps)) > 1).double().mean(0)
    assert lit.max() <= 0.01 + 1e-9
    assert "no stranger than 99% of normal images at this place" in words(map_legend(count))


# --- small red text ---------------------------------------------------------------------------------------------------


def luminance(colour: list[float]) -> float:
    """Relative luminance of sRGB values in [0, 1], as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def of_hex(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def computed(page, selector: str) -> list[float]:
    """The colour of an element's text, which Chromium writes as rgb(...) or color(srgb ...)."""
    text = page.locator(selector).first.evaluate("one => getComputedStyle(one).color")
    numbers = [float(number) for number in re.findall(r"[\d.]+", text)[:3]]
    return numbers if text.startswith("color(srgb") else [number / 255 for number in numbers]


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_small_red_text_can_be_read(browser, theme: str) -> None:  # noqa: F811
    colours = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"][theme]
    wrong = Belief(Shown(PIXEL, "an image", 8), torch.tensor([0.1, 0.9]).log(), truth=0)
    cards = gallery([Card([wrong.shown], "one", flagged=True, verdict="flagged")]) + belief_cards([wrong], ["a", "b"])
    page = browser.new_page()
    page.set_content(f'<body style="color: {colours["textColor"]}">{cards}</body>')
    for selector in (".gallery .flag", ".beliefs .line.wrong"):
        red = computed(page, selector)
        assert red[0] > 1.5 * max(red[1:]), f"{selector} is not red"
        for ground in ("backgroundColor", "secondaryBackgroundColor"):
            assert contrast(red, of_hex(colours[ground])) >= READABLE, (selector, ground)
    page.close()


# --- films ------------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_film_rests_where_less_motion_is_asked_for(browser) -> None:  # noqa: F811
    still, film = (images.data_address(content) for content in (PIXEL, FILM))
    page = browser.new_page()
    page.set_content(strip([Shown(FILM, "it forms", 8, still=PIXEL)]))
    seen = page.locator("img:visible")
    assert seen.count() == 1 and seen.get_attribute("src") == film
    page.emulate_media(reduced_motion="reduce")
    assert seen.count() == 1 and seen.get_attribute("src") == still and seen.get_attribute("alt") == "it forms"
    page.close()


def test_what_does_not_move_is_sent_once() -> None:
    assert strip([Shown(PIXEL, "an image", 8)]).count("<img") == 1
