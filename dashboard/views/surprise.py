"""Surprise: how unlikely chosen models find each pixel of one image, and what they expected of one of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from dashboard import images, loading, offers, one_image
from dashboard.choices import pick_models, say_if_gone
from dashboard.figures.surprise import Figure, density_figure, levels_figure, surprise_figure
from dashboard.gallery import Shown, strip
from dashboard.page import plain
from dashboard.pixel_surprise import TOLERANCE, Expected, Surprise, expected_of, surprise_of
from dashboard.scoring import Sight, Subject
from gdm_core.contract import PixelConditional, PixelLikelihood, has
from pipelines.tracking import ModelVersion

COLUMNS, SIDE, REMEMBERED = 3, 168, 64


@dataclass(frozen=True, eq=False)
class Seen:
    """One model, what it sees of the image, and how much each pixel surprises it."""

    subject: Subject
    sight: Sight
    surprise: Surprise


def render() -> None:
    """Models and image, the maps with a pixel to choose, and what each model expected there."""
    versions = loading.versions()
    offered = offers.able(versions, PixelLikelihood)
    offers.say_who_can(versions, offered, PixelLikelihood, "say how likely each pixel is", "pixel_cnn")
    if not offered:
        return
    say_if_gone(versions)
    chosen = pick_models(offered, default=_usual, most=6)
    offers.say_unknown(versions)
    subjects = one_image.alike(offers.load(chosen))
    if not subjects:
        st.info("Choose at least one model.", icon=":material/touch_app:")
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        picture = one_image.choose_picture(subjects, "surprise")
        if picture is None:
            return
        sights = one_image.sights(subjects, picture)
        seen = [Seen(one, sights[one.uri], _remembered(one, sights[one.uri])) for one in subjects]
        pixel = _pixel(seen[0].surprise)
    with right:
        _images(seen, picture.name, pixel)
    _models(seen, pixel)


def _usual(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    return offers.newest_dataset(versions)[:COLUMNS]


def _remembered(subject: Subject, sight: Sight) -> Surprise:
    """The map of this model and image, computed once per browser session: an upload is nobody else's."""
    known: OrderedDict = st.session_state.setdefault("_surprise", OrderedDict())
    key = subject.uri, sight.digests
    if key not in known:
        with subject.lock:
            known[key] = surprise_of(subject.stored.model, sight.x)
        while len(known) > REMEMBERED:
            known.popitem(last=False)
    return known[key]


def _pixel(surprise: Surprise) -> tuple[int, int]:
    """Row and column of the chosen pixel; where none is chosen, the one that surprises the first model most."""
    place = []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for key, size, top in zip(("row", "column"), surprise.map.shape, surprise.most_surprising, strict=True):
            if (st.session_state.get(key) or 0) >= size:  # of another model's larger images
                st.session_state[key] = None
            chosen = st.number_input(f"{key.capitalize()} (0 to {size - 1})", 0, size - 1, None, key=key,
                                     placeholder=str(top), bind="query-params", width=150)  # fmt: skip
            place.append(top if chosen is None else int(chosen))
        st.button("The most surprising", on_click=_choose, args=(None, None), icon=":material/priority_high:",
                  help="The pixel that the first model finds least likely.")  # fmt: skip
    return place[0], place[1]


def _choose(row: int | None, column: int | None) -> None:
    st.session_state["row"], st.session_state["column"] = row, column


def _clicked(key: str, width: int) -> None:
    """A click on a map: the pixel it hit is the chosen one; a second click there, which takes nothing away, is none."""
    places = [point["point_index"] for point in st.session_state[key].selection.points]
    if places:
        _choose(*divmod(int(places[-1]), width))


def _images(seen: Sequence[Seen], name: str, pixel: tuple[int, int]) -> None:
    """The image as the models see it, once for each way of seeing it, the chosen pixel framed."""
    ways = {one.subject.stored.treatment.label: one.sight.x[0] for one in seen}
    shown = []
    for label, x in ways.items():
        width = x.shape[-1] * images.enlargement(*x.shape[-2:], SIDE)
        content = images.framed_png(x, SIDE, pixel)
        shown.append(Shown(content, f"{name} as the model sees it, {label}", width, label))
    st.html(strip(shown))


def _models(seen: Sequence[Seen], pixel: tuple[int, int]) -> None:
    """A column for each model on one scale of colours; one model alone has its map and its expectation side by side."""
    limits = min(one.surprise.low for one in seen), max(one.surprise.high for one in seen)
    if len(seen) == 1:
        left, right = st.columns([3, 2], gap="medium")
        with left:
            _map(seen[0], pixel, limits)
        with right:
            _expectation(seen[0], pixel)
        return
    for start in range(0, len(seen), COLUMNS):
        columns = st.columns(min(COLUMNS, len(seen)), gap="medium")
        for column, one in zip(columns, seen[start : start + COLUMNS], strict=False):
            with column:
                _map(one, pixel, limits)
                _expectation(one, pixel)


def _map(one: Seen, pixel: tuple[int, int], limits: tuple[float, float]) -> None:
    subject, key = one.subject, f"map {one.subject.uri}"
    dataset = plain(str(subject.stored.card.dataset.get("name", "")))
    st.markdown(f"**{plain(subject.label)}** :gray[{dataset} · {plain(subject.stored.treatment.label)}]")
    figure = surprise_figure(one.surprise.map.numpy(), pixel, limits)
    st.plotly_chart(
        figure, key=key, on_select=partial(_clicked, key, one.surprise.map.shape[1]), selection_mode="points",
        config={"displayModeBar": False}, alt=f"Surprise of {subject.label} at each pixel, in nats",
    )  # fmt: skip
    st.caption(f"{one.surprise.in_words()} Click a pixel to see what the model expected there.")


def _expectation(one: Seen, pixel: tuple[int, int]) -> None:
    """What the model expected at the chosen pixel."""
    model = one.subject.stored.model
    here = float(one.surprise.map[pixel])
    st.markdown(f"Row {pixel[0]}, column {pixel[1]}: **{here:.3g} nats**")
    if not has(model, PixelConditional):
        st.caption("This model says how likely a pixel is, but not what else it expected there.")
        return
    with one.subject.lock:
        expected = expected_of(model, one.sight.x, *pixel)
    st.plotly_chart(_figure(expected), key=f"expected {one.subject.uri}", config={"displayModeBar": False},
                    alt=f"What {one.subject.label} expected at row {pixel[0]}, column {pixel[1]}")  # fmt: skip
    st.caption(expected.in_words())
    if abs(expected.surprise - here) > TOLERANCE * max(1.0, abs(here)):
        st.caption(f"That is {expected.surprise:.3g} nats: over several orderings of the pixels, the chart averages "
                   "probabilities and the map averages surprise.")  # fmt: skip


def _figure(expected: Expected) -> Figure:
    chances = expected.log_prob.exp().numpy()
    if expected.levels is None:
        return density_figure(expected.values.numpy(), chances, expected.true)
    return levels_figure(chances, [round(value * (expected.levels - 1)) for value in expected.true])
