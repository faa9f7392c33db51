"""What came of a completion: the image, what is known of it, the completions as they formed, and their mean."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
import torch
from torch import Tensor

from dashboard import images, masks
from dashboard.completing import Completions, classes_of
from dashboard.gallery import Shown, strip
from dashboard.saturation import say_if_saturated
from dashboard.scoring import Sight, Subject
from gdm_core.data.pictures import grid

ANY = "any"
SIDE, DOWNLOAD_COLUMNS = 96, 8
FILM_SECONDS = 2.4


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of every model."""

    picture: str  # its name
    sights: dict[str, Sight]
    unknown: Tensor
    n: int
    seed: int
    temperature: float
    label: int | None  # the class to be held, by models that can

    def label_for(self, subject: Subject) -> int | None:
        """The class that this model holds."""
        return self.label if self.label is not None and self.label < classes_of(subject.stored.model) else None


@dataclass(frozen=True)
class Looks:
    """How completions are shown."""

    film: bool  # as they form, once, before they stand still
    tint: bool  # what was filled in bluish


def looks() -> Looks:
    """How the user wants them shown."""
    with st.container(horizontal=True):
        film = st.toggle("Show how they form", True, key="film", bind="query-params", width="content",
                         help="Pixel by pixel, for models that fill in one after another.")  # fmt: skip
        tint = st.toggle("Tint what was filled in", True, key="tint", bind="query-params", width="content")
    return Looks(bool(film), bool(tint))


def finished(subject: Subject, done: Completions, x: Tensor, request: Request, looks: Looks) -> None:
    """The image, what is known of it, the mean of the completions, and these."""
    say_if_saturated(subject.stored, done.images[..., request.unknown])
    mean = done.images.mean(0)
    known = masks.covered(x, request.unknown)
    left, right = st.columns([3, 5], gap="medium")
    left.html(strip([
        shown(x, f"{request.picture} as the model sees it", "image", done.original),
        shown(known, "what is known of it", "what is known"),
        shown(mean, f"mean of {len(done.images)} completions", f"mean of {len(done.images)}"),
    ]))  # fmt: skip
    if looks not in done.drawn:
        done.drawn[looks] = strip(_pictures(subject.label, done, request.unknown, looks))
    right.html(done.drawn[looks])
    if done.log_prob is not None:
        right.caption("Under each completion: log p(x) of the whole image, in nats.")
    name = f"{subject.label.replace('/', '-')}-completions-seed{request.seed}.png"
    right.download_button("PNG", _download(x, known, mean, done.images), name, "image/png", f"png {subject.uri}",
                          "The image, what is known, the mean, and the completions.", on_click="ignore",
                          icon=":material/download:")  # fmt: skip


def _pictures(label: str, done: Completions, unknown: Tensor, looks: Looks) -> list[Shown]:
    likelihoods = [None] * len(done.images) if done.log_prob is None else done.log_prob.tolist()
    frames = done.frames if looks.film else done.images[None]
    frames = masks.tinted(frames, unknown) if looks.tint else frames
    return [
        shown(frames[:, i], f"completion {i + 1} by {label}", "", likelihoods[i]) for i in range(len(done.images))
    ]


def shown(image: Tensor, description: str, caption: str = "", log_prob: float | None = None) -> Shown:
    """An image (C, H, W), or one with the moments before it (T, C, H, W)."""
    width = image.shape[-1] * images.enlargement(*image.shape[-2:], SIDE)
    words = [caption] * bool(caption) + ([] if log_prob is None else [f"{log_prob:.2f}"])
    moments = image.reshape(-1, *image.shape[-3:])
    still = images.image_png(moments[-1], SIDE)
    if len(moments) == 1:
        return Shown(still, description, width, ": ".join(words))
    return Shown(images.film(moments, FILM_SECONDS), description, width, ": ".join(words), still=still)


def _download(x: Tensor, known: Tensor, mean: Tensor, completions: Tensor) -> bytes:
    """All of it in one picture, in the order of the page."""
    pictures = [image.expand(3, -1, -1) for image in (x, known, mean, *completions)]
    factor = images.enlargement(*x.shape[-2:], SIDE)
    return images.png(grid(torch.stack(pictures), DOWNLOAD_COLUMNS, factor))
