"""What the Interpolate page shows once there is something: rows of images, or a walk that moves. A job for each model
makes all of it, so that adding a model leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st
import torch
from torch import Tensor

from dashboard import images, latent_paths
from dashboard.choices import version_name
from dashboard.gallery import Shown, row, strip
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.loading import LoadedModel
from dashboard.page import plain
from gdm_core.data.pictures import grid
from pipelines.tracking import ModelVersion

CELL, WALK_SIDE, FILM_CELL, FILM_COLUMNS = 80, 240, 40, 12


@dataclass(frozen=True)
class Rows:
    """Rows of images as HTML, by the way they go, and all of them in one picture."""

    of_way: dict[str, str]
    png: bytes


@dataclass(frozen=True)
class Walk:
    """A walk that moves, its first image, and all its images in rows."""

    count: int
    gif: bytes
    still: bytes
    film: bytes


@dataclass(frozen=True)
class Asked:
    """What is asked of a model: `work` does it, `request` is what that depends on, `file` is what it is called."""

    version: ModelVersion
    request: tuple
    work: Callable[[Job], Any]
    file: str

    @property
    def key(self) -> str:
        return f"interpolate {self.version.uri}"


def rows(
    path: Callable[[str, int], Tensor], ways: Sequence[str], steps: int, ends: Sequence[Tensor] = ()
) -> Callable[[Job], Rows]:
    """The work of a job that goes several ways, between two ends (C, H, W) where they are images."""

    def work(job: Job) -> Rows:
        edges = [Shown(images.image_png(x, CELL), end, CELL, end)
                 for x, end in zip(ends, ("from", "to")[: len(ends)], strict=True)]  # fmt: skip
        frames: dict[str, Tensor] = {}
        for way in ways:
            job.report(len(frames) / len(ways))
            frames[way] = path(way, steps)
        whole = torch.cat(list(frames.values()))
        return Rows(
            {way: row(_cells(way, x), *edges) for way, x in frames.items()},
            images.png(grid(whole, steps, images.enlargement(*whole.shape[-2:], CELL))),
        )

    return work


def _cells(way: str, frames: Tensor) -> list[Shown]:
    count = len(frames)
    return [Shown(images.image_png(x, CELL), f"{way}, step {i} of {count}", CELL) for i, x in enumerate(frames, 1)]


def walk(loaded: LoadedModel, seed: int, count: int) -> Callable[[Job], Walk]:
    """The work of a job that walks at random."""

    def work(job: Job) -> Walk:
        frames = latent_paths.random_walk(loaded, seed, count)
        job.report(0.5)
        gif = images.animation(frames, WALK_SIDE)
        job.report(0.9)
        film = images.png(grid(frames, FILM_COLUMNS, images.enlargement(*frames.shape[-2:], FILM_CELL)))
        return Walk(len(frames), gif, images.image_png(frames[0], WALK_SIDE), film)

    return work


def show(asked: Sequence[Asked], play: bool = True) -> None:
    """Start what is not there yet, and show what is; walks stand still where they are not to `play`."""
    jobs = session_jobs()
    jobs.forget_all_but("interpolate ", {one.key for one in asked})
    begun = [(one, jobs.keep(one.key, one.request, one.work)) for one in asked]
    if begun:
        watch([job for _, job in begun], partial(_results, begun, play))


def _results(begun: Sequence[tuple[Asked, Job]], play: bool) -> None:
    for asked, job in begun:
        version = asked.version
        st.markdown(f"**{plain(version_name(version))}** :gray[{plain(version.dataset)} · {plain(version.treatment)}]")
        if not show_state(job, asked.key, partial(session_jobs().forget, asked.key)):
            continue
        if isinstance(job.result, Walk):
            _show_walk(asked, job.result, play)
        else:
            _show_rows(asked, job.result)


def _show_rows(asked: Asked, found: Rows) -> None:
    for way, pictures in found.of_way.items():
        st.caption(way)
        st.html(pictures)
    st.download_button("PNG", found.png, f"{asked.file}.png", "image/png", f"png {asked.version.uri}",
                       on_click="ignore", icon=":material/download:")  # fmt: skip


def _show_walk(asked: Asked, found: Walk, play: bool) -> None:
    """The walk as an animation and as a filmstrip."""
    uri, told = asked.version.uri, f"a random walk of {version_name(asked.version)}"
    moving = Shown(found.gif, told, WALK_SIDE, "", "image/gif", still=found.still)
    left, right = st.columns([1, 2], gap="medium")
    with left:
        st.html(strip([moving if play else Shown(found.still, f"the first image of {told}", WALK_SIDE)]))
        st.download_button("GIF", found.gif, f"{asked.file}.gif", "image/gif", f"gif {uri}", on_click="ignore",
                           icon=":material/download:")  # fmt: skip
    with right:
        st.image(found.film, alt=f"the {found.count} frames of the walk, row by row")
        st.download_button("Filmstrip", found.film, f"{asked.file}.png", "image/png", f"film {uri}", on_click="ignore",
                           icon=":material/download:")  # fmt: skip
