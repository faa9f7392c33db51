"""Completion: chosen models fill in the pixels that are unknown, again and again, from one image and one mask."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial

import streamlit as st
from torch import Tensor

from dashboard import loading, masks, offers, one_image
from dashboard.brush import brush
from dashboard.choices import pick_models, say_if_gone
from dashboard.completing import classes_of, completing, why
from dashboard.gallery import strip
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.page import plain
from dashboard.scoring import Subject
from dashboard.views.completion_results import ANY, Looks, Request, finished, looks, shown
from gdm_core.contract import Completes, CompletesStepwise, has
from gdm_core.registry import model_class
from pipelines.tracking import ModelVersion

PAINTED = "painted"
MOST = 64
SEED_HELP = "One seed gives the same completions every time."
TEMPERATURE_HELP = "How bold the draws are; 1 is the model itself, and only there can a completion be exact."


def render() -> None:
    """Models, the image with its brush, the controls, then what each model makes of it."""
    versions = loading.versions()
    offered = offers.able(versions, Completes)
    offers.say_who_can(versions, offered, Completes, "fill in missing pixels", "nade")
    if not offered:
        return
    say_if_gone(versions)
    chosen = pick_models(offered, default=_usual, most=6)
    offers.say_unknown(versions)
    subjects = one_image.alike(offers.load(chosen))
    if not subjects:
        st.info("Choose at least one model.", icon=":material/touch_app:")
        return
    left, right = st.columns([2, 3], gap="medium")
    with right:
        picture = one_image.choose_picture(subjects, "completion")
        if picture is None:
            return
        sights = one_image.sights(subjects, picture)
        unknown = _mask(*subjects[0].format[0][1:])
        label = _class(subjects)
        n, seed, temperature = _controls()
    with left:
        _paint(sights[subjects[0].uri].x[0], unknown)
    request = Request(picture.name, sights, unknown, n, seed, temperature, label)
    jobs = [(subject, _start(subject, request)) for subject in subjects]
    session_jobs().forget_all_but("completion ", {_key(subject) for subject in subjects})
    watch([job for _, job in jobs], partial(_results, jobs, request, looks()))


def _usual(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """Three models of the newest data set, first those that can be watched."""
    newest = offers.newest_dataset(versions)
    return sorted(newest, key=lambda v: not has(model_class(v.architecture), CompletesStepwise))[:3]


# --- what is unknown --------------------------------------------------------------------------------------------------


def _mask(height: int, width: int) -> Tensor:
    """The mask that is chosen, or the painted one, which the address carries as well."""
    if "hidden" not in st.session_state and "pixels" in st.query_params:
        st.session_state["_painted"] = st.query_params["pixels"]
    name = st.pills("Unknown pixels", [*masks.PRESETS, PAINTED], default=masks.BOTTOM, required=True, key="hidden",
                    wrap=True, bind="query-params", help="Or paint them on the image.")  # fmt: skip
    share = 0.5
    if name == masks.RANDOM:
        share = st.slider("Share of unknown pixels, %", 5, 95, 50, 5, key="share", bind="query-params") / 100
    text = st.session_state.get("_painted", "") if name == PAINTED else ""
    painted = masks.from_text(text, height, width)
    _keep_in_address(text if painted is not None else None)
    if painted is not None:
        return painted
    return masks.preset(masks.BOTTOM if name == PAINTED else name, height, width, share)


def _keep_in_address(pixels: str | None) -> None:
    if pixels is not None and st.query_params.get("pixels") != pixels:
        st.query_params["pixels"] = pixels
    elif pixels is None and "pixels" in st.query_params:
        del st.query_params["pixels"]


def _paint(x: Tensor, unknown: Tensor) -> None:
    brush(x, unknown, _painted, "brush")
    st.caption("Blue pixels are unknown. Paint on the image to hide or reveal some: the completions follow.")


def _painted(unknown: Tensor) -> None:
    """A stroke of the brush: from now on the mask is the painted one."""
    st.session_state["_painted"] = masks.to_text(unknown)
    st.session_state["hidden"] = PAINTED


# --- completing -------------------------------------------------------------------------------------------------------


def _controls() -> tuple[int, int, float]:
    count, seed = st.columns(2)
    n = count.number_input("Completions", 1, MOST, 8, key="n", bind="query-params")
    number = seed.number_input("Seed", 0, 2**31 - 1, 0, key="seed", help=SEED_HELP, bind="query-params")
    temperature = st.slider(
        "Temperature", 0.1, 2.0, 1.0, 0.05, key="temperature", help=TEMPERATURE_HELP, bind="query-params"
    )
    st.button("Complete anew", type="primary", on_click=_new_seed, icon=":material/casino:",
              help="Draw other completions, with a new seed.")  # fmt: skip
    return int(n), int(number), float(temperature)


def _class(subjects: Sequence[Subject]) -> int | None:
    """The class to complete images of, where a model can hold one; None for any."""
    count = max(classes_of(subject.stored.model) for subject in subjects)
    if not count:
        return None
    name = st.selectbox("Class", [ANY, *map(str, range(count))], key="class", bind="query-params",
                        help="Held like a known pixel by models that can; the others complete for any.")  # fmt: skip
    return None if name == ANY else int(name)


def _new_seed() -> None:
    st.session_state["seed"] = secrets.randbelow(100_000)


def _key(subject: Subject) -> str:
    return f"completion {subject.uri}"


def _start(subject: Subject, request: Request) -> Job:
    seen = request.sights[subject.uri]
    work = completing(
        subject.stored.model, subject.lock, seen.x[0], request.unknown, request.n, request.seed, request.temperature,
        request.label_for(subject),
    )  # fmt: skip
    wanted = (seen.digests, masks.to_text(request.unknown), request.n, request.seed, request.temperature,
              request.label_for(subject))  # fmt: skip
    return session_jobs().keep(_key(subject), wanted, work)


# --- what came of it --------------------------------------------------------------------------------------------------


def _results(jobs: Sequence[tuple[Subject, Job]], request: Request, looked: Looks) -> None:
    for index, (subject, job) in enumerate(jobs):
        with st.container(key=f"completion_{index}"):
            _result(subject, job, request, looked)


def _result(subject: Subject, job: Job, request: Request, looked: Looks) -> None:
    card = subject.stored.card
    label = request.label_for(subject)
    exact, reason = why(subject.stored.model, request.unknown, of_class=label is not None)
    exact = exact and request.temperature == 1
    with st.container(horizontal=True, vertical_alignment="center"):
        dataset = plain(str(card.dataset.get("name", "")))
        of_class = "" if request.label is None else f" · class {ANY if label is None else label}"
        st.markdown(f"**{plain(subject.label)}** :gray[{dataset} · {plain(subject.stored.treatment.label)}{of_class}]",
                    width="content")  # fmt: skip
        st.badge("exact" if exact else "approximate", color="green" if exact else "orange",
                 icon=":material/check:" if exact else ":material/airwave:")  # fmt: skip
    st.caption(plain(reason) if request.temperature == 1 else f"{plain(reason)} At a temperature other than 1 every "
               "draw is bolder or shyer than the model.")  # fmt: skip
    done = show_state(job, _key(subject), partial(session_jobs().forget, _key(subject)))
    x = request.sights[subject.uri].x[0]
    if done:
        finished(subject, job.result, x, request, looked)
    elif job.preview is not None:
        forming = masks.tinted(job.preview, request.unknown) if looked.tint else job.preview
        st.html(strip([shown(image, f"completion {i}, forming") for i, image in enumerate(forming, 1)]))
