"""Samples: chosen models drawn live, from one seed, in grids side by side."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial

import streamlit as st
from torch import Tensor

from dashboard import images, loading, offers
from dashboard.choices import pick_models, say_if_gone, version_name
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.loading import LoadedModel
from dashboard.page import link, plain
from dashboard.sampling import sampling
from dashboard.saturation import say_if_saturated
from gdm_core.contract import Classifies, Samples
from gdm_core.data.pictures import square_columns
from pipelines.tracking import ModelVersion

MOST_IMAGES, GRID_SIDE, COLUMNS = 400, 480, 3
TEMPERATURE_HELP = (
    "How bold the draws are; 1 is the model itself. Autoregressive and energy models: logits are divided by it. "
    "Models with a latent space: the latent code is multiplied by it."
)
SEED_HELP = "One seed gives the same images every time, and is used for all models."

Drawn = tuple[ModelVersion, LoadedModel, Job]


@dataclass(frozen=True)
class Request:
    """What is asked of every model."""

    n: int
    seed: int
    temperature: float

    @property
    def words(self) -> str:
        """For the names of files."""
        return f"n{self.n}-seed{self.seed}-temperature{self.temperature:g}"


def render() -> None:
    """Controls, then a grid for each chosen model."""
    versions = loading.versions()
    offered = offers.able(versions, Samples)
    if not offered:
        offers.say_nothing_registered("draw samples")
        return
    say_if_gone(versions)
    chosen = pick_models(offered, default=offers.newest_dataset, most=9)
    request = _controls()
    offers.say_unknown(versions)
    if not chosen:
        st.info("Choose at least one model.", icon=":material/touch_app:")
        return
    loaded = offers.load(chosen)
    session_jobs().forget_all_but("samples ", {_key(version) for version, _ in loaded})
    drawn = [_start(*pair, request) for pair in loaded]
    if drawn:
        watch([job for *_, job in drawn], partial(_grids, drawn, request))
        _download_all(drawn, request)
    for version in offers.able(chosen, Classifies):
        link("classes", f"Classes of {version_name(version)}", models=version_name(version))


def _controls() -> Request:
    count, seed, temperature, button = st.columns([1, 1, 2, 1], vertical_alignment="bottom")
    n = count.number_input("Images", 1, MOST_IMAGES, 36, key="n", bind="query-params")
    number = seed.number_input("Seed", 0, 2**31 - 1, 0, key="seed", help=SEED_HELP, bind="query-params")
    heat = temperature.slider(
        "Temperature", 0.1, 2.0, 1.0, 0.05, key="temperature", help=TEMPERATURE_HELP, bind="query-params"
    )
    button.button("Sample", type="primary", on_click=_new_seed, icon=":material/casino:", width="stretch",
                  help="Draw again, with a new seed.")  # fmt: skip
    return Request(int(n), int(number), float(heat))


def _new_seed() -> None:
    st.session_state["seed"] = secrets.randbelow(100_000)


def _start(version: ModelVersion, loaded: LoadedModel, request: Request) -> Drawn:
    work = sampling(loaded.model, loaded.lock, request.n, request.seed, request.temperature)
    return version, loaded, session_jobs().keep(_key(version), request, work)


def _key(version: ModelVersion) -> str:
    return f"samples {version.uri}"


def _grids(drawn: list[Drawn], request: Request) -> None:
    columns = st.columns(min(COLUMNS, len(drawn)), gap="medium")
    for index, (version, loaded, job) in enumerate(drawn):
        with columns[index % len(columns)], st.container(key=f"samples_{index}"):
            _grid(version, loaded, job, request)


def _grid(version: ModelVersion, loaded: LoadedModel, job: Job, request: Request) -> None:
    aliases = ", ".join(version.aliases)
    st.markdown(f"**{plain(version_name(version))}**" + (f" :gray[{plain(aliases)}]" if aliases else ""))
    finished = show_state(job, _key(version), partial(session_jobs().forget, _key(version)))
    shown = job.result if finished else job.preview
    if shown is None:
        return
    content = _finished_png(job) if finished else _png(shown)
    st.image(content, alt=f"{len(shown)} samples of {version_name(version)}, seed {request.seed}")
    if finished:
        say_if_saturated(loaded.stored, shown)
        st.caption(f"{plain(version.dataset)} · {plain(version.treatment)}")
        st.download_button("PNG", content, f"{version.name}-{version.version}-{request.words}.png", "image/png",
                           key=f"png {version.uri}", on_click="ignore", icon=":material/download:")  # fmt: skip


def _png(shown: Tensor) -> bytes:
    return images.png(images.grid_picture(shown, square_columns(shown), GRID_SIDE))


def _finished_png(job: Job) -> bytes:
    """Made once: it is drawn again as long as another model goes on."""
    if "grid" not in job.drawn:
        job.drawn["grid"] = _png(job.result)
    return job.drawn["grid"]


def _download_all(drawn: list[Drawn], request: Request) -> None:
    results = [job.result for *_, job in drawn]
    if len(drawn) < 2 or any(result is None for result in results):
        return
    order = "From left to right: " + ", ".join(version_name(version) for version, *_ in drawn)
    st.download_button("All grids as one PNG", lambda: _beside(results), f"samples-{request.words}.png", "image/png",
                       "png all", order, "ignore", icon=":material/download:")  # fmt: skip


def _beside(results: list[Tensor]) -> bytes:
    grids = [images.grid_picture(result, square_columns(result), GRID_SIDE) for result in results]
    return images.png(images.beside(grids))
