"""What the Anomalies page shows once there are scores: verdicts, images with heat maps, a table, a histogram, a CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
import torch
from torch import Tensor

from dashboard import images
from dashboard.choices import with_former
from dashboard.figures.anomalies import score_histogram
from dashboard.gallery import Card, Shown, gallery, map_legend, strip
from dashboard.page import plain
from dashboard.scoring import FORMER_SCORES, Judged, Picture, ScoreBook, Sight, cut
from dashboard.verdict_tables import VERDICTS, csv_text, flagged_styles, order, table
from gdm_core.anomaly import map_for
from gdm_core.data.pictures import grid

CARDS, IN_TABLE, SMALL, LARGE = 12, 64, 96, 152

Part = tuple[Tensor, str, str]  # a picture (C, H, W), what it is, and its caption


@dataclass(frozen=True, eq=False)
class Results:
    """Everything there is to show."""

    pictures: Sequence[Picture]
    sights: dict[str, Sight]  # by the model's address
    judged: Sequence[Judged]
    rate: float
    false_discovery: bool
    book: ScoreBook
    drawn: dict[tuple[str, int, int], bytes]  # images as PNG, kept as long as the scores

    def png(self, uri: str, i: int, side: int) -> bytes:
        """An image as a model sees it, about `side` dots wide, made once."""
        key = (uri, i, side)
        if key not in self.drawn:
            self.drawn[key] = images.image_png(self.sights[uri].x[i], side)
        return self.drawn[key]

    @property
    def procedure(self) -> str:
        return "Benjamini-Hochberg" if self.false_discovery else "p-value at most the rate"


def draw(results: Results) -> None:
    """All of it. Where there are several models or scores, one of them is looked at and the table has all."""
    place = _looked_at(results)
    one = results.judged[place]
    _summary(results, one)
    heat_map = _heat_map(one)
    _pictures(results, one, heat_map)
    beside = len(results.judged) <= 2
    left, right = st.columns([3, 2], gap="medium") if beside else (st.container(), st.container())
    with left:
        chosen = _table(results, place)
    with right:
        _detail(results, chosen, heat_map)
    _histogram(results, one, chosen)


def _looked_at(results: Results) -> int:
    if len(results.judged) == 1:
        return 0
    labels = [one.label for one in results.judged]
    former = {f"{one.model.label} · {name}": one.label for one in results.judged
              for name, scorer in FORMER_SCORES.items() if scorer == one.scorer.name}  # fmt: skip
    chosen = st.selectbox("Look at", with_former("look", labels, former), key="look", bind="query-params",
                          help="Which verdicts and heat maps are shown below. The table has all of them.")  # fmt: skip
    return labels.index(former.get(chosen, chosen))


def _summary(results: Results, one: Judged) -> None:
    flagged, count = int(one.flagged.sum()), len(one.p)
    if results.false_discovery:
        what = f"expected share of normal images among the flagged at most {results.rate:.2%}"
    else:
        what = f"false-alarm rate {results.rate:.2%}: about {results.rate * count:.2g} of {count} if all were normal"
    st.subheader(f"{flagged} of {count} images flagged", anchor=False)
    st.caption(f"{plain(one.label)}, against {len(one.calibration_scores)} held-out normal images; {what}. "
               "Flagged means unlike the normal images; whether it is wrong is for you to say.")  # fmt: skip


def _heat_map(one: Judged) -> str | None:
    """The word of the heat map to show; there is something to choose where the model has several."""
    model, methods = one.model.stored.model, list(one.model.maps)
    if len(methods) < 2:
        return None
    words = [method.word for method in methods]
    told = "\n\n".join(f"**{plain(m.label_for(model))}**: {plain(m.description_for(model))}" for m in methods)
    if st.session_state.get("map", words[0]) not in words:
        st.session_state["map"] = words[0]  # another model was looked at
    return st.segmented_control("Heat map", words, default=words[0], required=True, key="map", help=told,
                                bind="query-params")  # fmt: skip


def _pictures(results: Results, one: Judged, heat_map: str | None) -> None:
    rows = order(one)
    pages = math.ceil(len(rows) / CARDS)
    page = st.pagination(pages, key="page", bind="query-params") if pages > 1 else 1
    shown = rows[(page - 1) * CARDS : page * CARDS]
    brightness = results.book.brightness(one.model, results.sights[one.model.uri].take(shown), heat_map)
    maps = [None] * len(shown) if brightness is None else list(brightness)
    st.html(gallery([_card(results, one, i, lit) for i, lit in zip(shown, maps, strict=True)]))
    _map_note(one, heat_map)


def _card(results: Results, one: Judged, i: int, brightness: Tensor | None) -> Card:
    seen, name = results.sights[one.model.uri], results.pictures[i].name
    pictures = [Shown(results.png(one.model.uri, i, SMALL), f"{name} as the model sees it", SMALL)]
    if brightness is not None:
        pictures.append(Shown(images.image_png(images.heat_map(brightness), SMALL), _map_words(brightness), SMALL))
    lines = [f"p = {float(one.p[i]):.3g}, score {float(one.scores[i]):.4g}"] + ["inverted"] * seen.inverted[i]
    return Card(pictures, name, lines, bool(one.flagged[i]), VERDICTS[bool(one.flagged[i])])


def _map_words(brightness: Tensor) -> str:
    return f"heat map: {int((brightness > 0).sum())} of {brightness.numel()} pixels lit"


def _map_note(one: Judged, heat_map: str | None) -> None:
    model, method = one.model.stored.model, one.model.heat_map(heat_map)
    if method is not None:
        st.html(map_legend(one.model.calibration.count))
        st.caption(f"Left: as the model sees it. Right: {plain(method.label_for(model))}, on one scale for the whole "
                   f"data set. {plain(method.description_for(model))}")  # fmt: skip
    elif map_for(model) is None:
        st.caption(f"{plain(one.model.label)} has no measure of single pixels, so there is no heat map.")
    else:
        st.caption(f"{plain(one.model.label)} was registered without a scale for heat maps, so none is shown.")


def _table(results: Results, place: int) -> int:
    """The table and the CSV; the place of the chosen image, the strangest where none is chosen."""
    one = results.judged[place]
    pngs = [results.png(one.model.uri, i, IN_TABLE) for i in range(len(results.pictures))]
    frame = table(results.pictures, pngs, results.judged, place)
    number = st.column_config.NumberColumn
    columns = {"as seen": st.column_config.ImageColumn("", width="small"), "score": number(format="%.4g")}
    columns |= {name: number(format="%.4f") for name in frame.columns if name == "p-value" or " · " in name}
    state = st.dataframe(
        frame.style.apply(flagged_styles, judged=results.judged, axis=None), hide_index=True, column_config=columns,
        on_select="rerun", selection_mode="single-row", key="table", height=_height(len(frame)), row_height=44,
        alt="Images with their p-values and verdicts, the strangest first",
    )  # fmt: skip
    content = csv_text(results.pictures, results.sights, results.judged, results.rate, results.procedure)
    st.download_button("CSV", content.encode(), "verdicts.csv", "text/csv", "csv", on_click="ignore",
                       icon=":material/download:", help="Every image, model and score, in full precision.")  # fmt: skip
    chosen = [row for row in state.selection.rows if row < len(frame)]
    return int(frame.index[chosen[0] if chosen else 0])


def _height(rows: int) -> int:
    return min(520, 44 * rows + 42)


def _detail(results: Results, i: int, heat_map: str | None) -> None:
    picture = results.pictures[i]
    width, height = picture.size
    st.markdown(f"**{plain(picture.name)}** :gray[{width} x {height}]")
    original = Shown(images.png(picture.thumbnail), f"{picture.name}, the original", LARGE, "original")
    for position, uri in enumerate(results.sights):
        judged = [one for one in results.judged if one.model.uri == uri]
        parts = _as_seen(results, judged[0], i, heat_map)
        shown = [Shown(images.image_png(x, LARGE), words, LARGE, caption) for x, words, caption in parts]
        if len(results.sights) > 1:
            st.markdown(f"**{plain(judged[0].model.label)}**")
        st.html(strip([original] * (position == 0) + shown))
        for one in judged:
            verdict = ":red[**⚑ flagged**]" if bool(one.flagged[i]) else "not flagged"
            st.markdown(f"{verdict}, p = {float(one.p[i]):.4g}: {plain(one.score)} {float(one.scores[i]):.5g}",
                        help=plain(one.scorer.description))  # fmt: skip
        _download(picture.name, judged[0], parts, heat_map)
    st.caption("Select a row of the table to see another image here.")


def _as_seen(results: Results, one: Judged, i: int, heat_map: str | None) -> list[Part]:
    """One image as a model sees it, its heat map, and the map over the image."""
    seen = results.sights[one.model.uri].take([i])
    brightness = results.book.brightness(one.model, seen, heat_map)
    how = "as the model sees it" + (", inverted" if seen.inverted[0] else "")
    parts = [(seen.x[0], how, how)]
    if brightness is None:
        return parts
    heat, over = images.heat_map(brightness[0]), images.heat_overlay(seen.x[0], brightness[0])
    told = "heat map over the image"
    return [*parts, (heat, _map_words(brightness[0]), "heat map"), (over, told, told)]


def _download(image: str, one: Judged, parts: Sequence[Part], heat_map: str | None) -> None:
    """The chosen image as on the page, in one picture."""
    name = "-".join([image, one.model.label, *([heat_map or "heat-map"] if len(parts) > 1 else [])]).replace("/", "-")
    told = "From left to right: " + ", ".join(caption for *_, caption in parts) + "."
    st.download_button("PNG", lambda: _beside([x for x, *_ in parts]), f"{name}.png", "image/png",
                       f"png {one.model.uri}", told, on_click="ignore", icon=":material/download:")  # fmt: skip


def _beside(pictures: Sequence[Tensor]) -> bytes:
    whole = torch.stack([x.double().expand(3, -1, -1) for x in pictures])
    return images.png(grid(whole, len(whole), images.enlargement(*whole.shape[-2:], LARGE)))


def _histogram(results: Results, one: Judged, chosen: int) -> None:
    st.subheader("Where the scores lie", anchor=False)
    names = [picture.name for picture in results.pictures]
    limit = None if results.false_discovery else cut(one.calibration_scores, results.rate)
    figure = score_histogram(
        one.calibration_scores, one.scores, one.flagged, names, f"{one.score} ({one.model.label})", limit, chosen
    )
    st.plotly_chart(figure, key="histogram", alt="Histogram of normal scores with the images marked",
                    config={"displaylogo": False})  # fmt: skip
