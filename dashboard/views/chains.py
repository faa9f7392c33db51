"""Chains: chosen models wander from image to image by their Markov chains, watched step by step."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st
import torch
from torch import Tensor

from dashboard import chains, images, loading, offers, scoring, trained_on
from dashboard.chains import Classify, Course
from dashboard.choices import pick_models, say_if_gone, version_name
from dashboard.figures.chains import chain_figure
from dashboard.gallery import Shown, strip
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.page import plain
from dashboard.scoring import Subject
from dashboard.uploads import PRIVACY, uploaded_pictures
from gdm_core.contract import RunsChains
from gdm_core.data import DataError, ImageDataset, Treatment, evaluation_images
from gdm_core.randomness import seeded_generator

DATA, NOISE, UPLOAD = "Test images", "Noise", "Upload"
STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
SIDE, MOST, COMPARED = 64, 64, 300
SEED_HELP = "One seed gives the same chains every time."
TEMPERATURE_HELP = "Energies are divided by it: above 1 the chains roam, below 1 they settle."


@dataclass(frozen=True)
class Request:
    """What is asked of every model."""

    start: str
    n: int
    steps: int
    seed: int
    temperature: float


def render() -> None:
    """Models, where the chains start, then each model's chains with how they mix."""
    versions = loading.versions()
    offered = offers.able(versions, RunsChains)
    offers.say_who_can(versions, offered, RunsChains, "run a Markov chain", "rbm")
    if not offered:
        return
    say_if_gone(versions)
    chosen = pick_models(offered, default=lambda known: offers.newest_dataset(known)[:2], most=3)
    offers.say_unknown(versions)
    loaded = offers.load(chosen)
    subjects = [scoring.subject(version_name(v), v.uri, one.stored, one.lock) for v, one in loaded]
    if not subjects:
        st.info("Choose at least one model.", icon=":material/touch_app:")
        return
    request = _controls()
    begun = [(subject, _start(subject, request, x)) for subject, x in _starts(subjects, request)]
    if not begun:
        return
    session_jobs().forget_all_but("chains ", {_key(subject) for subject, _ in begun})
    watch([job for _, job in begun], partial(_results, begun, request))


def _controls() -> Request:
    start = st.segmented_control("Start from", [DATA, NOISE, UPLOAD], default=DATA, required=True, key="start",
                                 bind="query-params")  # fmt: skip
    count, steps, seed, temperature, button = st.columns([1, 2, 1, 2, 1], vertical_alignment="bottom")
    n = count.number_input("Chains", 1, MOST, 16, key="n", bind="query-params")
    length = steps.select_slider("Steps", STEPS, 200, key="steps", bind="query-params")
    number = seed.number_input("Seed", 0, 2**31 - 1, 0, key="seed", help=SEED_HELP, bind="query-params")
    heat = temperature.slider(
        "Temperature", 0.1, 3.0, 1.0, 0.05, key="temperature", help=TEMPERATURE_HELP, bind="query-params"
    )
    button.button("Run anew", type="primary", on_click=_new_seed, icon=":material/casino:", width="stretch",
                  help="Other chains, with a new seed.")  # fmt: skip
    return Request(str(start), int(n), int(length), int(number), float(heat))


def _new_seed() -> None:
    st.session_state["seed"] = secrets.randbelow(100_000)


# --- where the chains start -------------------------------------------------------------------------------------------


def _starts(subjects: Sequence[Subject], request: Request) -> list[tuple[Subject, Tensor]]:
    """The images (n, C, H, W) that each model's chains start at; a model without any is named."""
    if request.start == NOISE:
        return [(one, chains.noise(one.stored.model, request.n, request.seed)) for one in subjects]
    if request.start == UPLOAD:
        return _uploaded(subjects, request.n)
    found = []
    for subject in subjects:
        data = _dataset(subject)
        if data is None:
            name = plain(str(subject.stored.card.dataset.get("name", "its data set")))
            st.warning(f"**{plain(subject.label)}**: no test images of {name} here. Start from noise, or from an "
                       "upload.", icon=":material/image_not_supported:")  # fmt: skip
            continue
        test = data.splits["test"]
        rows = torch.randint(len(test), (request.n,), generator=seeded_generator(request.seed, "start"))
        found.append((subject, subject.stored.treatment(test.images[rows], seeded_generator(0, "start"))))
    return found


def _uploaded(subjects: Sequence[Subject], n: int) -> list[tuple[Subject, Tensor]]:
    file = st.file_uploader("One image: PNG, JPEG, WebP, BMP, GIF, TIFF", key="upload", help=PRIVACY)
    if not file:
        st.info("Upload an image: every chain starts at it.", icon=":material/add_photo_alternate:")
        return []
    pictures = uploaded_pictures([file], sorted({subject.format for subject in subjects}), "chains")
    if not pictures:
        return []
    return [(one, scoring.sight(one, pictures[:1]).x.expand(n, -1, -1, -1).clone()) for one in subjects]


def _dataset(subject: Subject) -> ImageDataset | None:
    """The data set it was trained on, where its files are on this machine."""
    try:
        return trained_on.dataset(subject.stored.card)
    except DataError:
        return None


@st.cache_resource(max_entries=8, show_spinner=False)
def _compared(digest: str, treatment: str, _data: ImageDataset, _see: Treatment) -> tuple[Tensor, Classify | None]:
    """Validation images as the model sees them, and who tells the class of an image where the data has classes."""
    train, see = _data.splits["train"], _see
    seen = evaluation_images(_data.splits["validation"], see)[:COMPARED]
    if train.labels is None:
        return seen, None
    known = see(train.images[: chains.MOST_NEIGHBOURS], seeded_generator(0, "neighbours"))
    return seen, chains.nearest_neighbours(known, train.labels[: chains.MOST_NEIGHBOURS])


# --- running ----------------------------------------------------------------------------------------------------------


def _key(subject: Subject) -> str:
    return f"chains {subject.uri}"


def _start(subject: Subject, request: Request, x: Tensor) -> Job:
    dataset, see = _dataset(subject), subject.stored.treatment
    data, classify = torch.zeros(0, *subject.format[0]), None
    if dataset is not None:
        data, classify = _compared(dataset.digest, see.label, dataset, see)
    work = chains.running(
        subject.stored.model, subject.lock, x, request.steps, request.temperature, request.seed, classify, data
    )
    return session_jobs().keep(_key(subject), (request, x.numpy().tobytes()), work)


# --- what came of it --------------------------------------------------------------------------------------------------


def _results(begun: Sequence[tuple[Subject, Job]], request: Request) -> None:
    for index, (subject, job) in enumerate(begun):
        with st.container(key=f"chains_{index}"):
            card = subject.stored.card
            dataset = plain(str(card.dataset.get("name", "")))
            st.markdown(f"**{plain(subject.label)}** :gray[{dataset} · {plain(subject.stored.treatment.label)}]")
            finished = show_state(job, _key(subject), partial(session_jobs().forget, _key(subject)))
            if finished:
                _finished(subject, job.result, request)
            elif job.preview is not None:
                st.html(strip([_shown(x, f"chain {i}, on its way") for i, x in enumerate(job.preview, 1)]))


def _finished(subject: Subject, course: Course, request: Request) -> None:
    saturated = (course.saturation or 0.0) > chains.SATURATED
    if saturated:
        st.error(f"The chains saturate: {course.saturation:.0%} more of their pixels are at 0 or 1 than of the data's. "
                 "They have left the images the model knows, so their ends are not shown as results. Train with a "
                 "smaller step or a stronger penalty.", icon=":material/error:")  # fmt: skip
    moment = st.select_slider("Step", course.moments, course.moments[-1], key=f"step {subject.label}",
                              bind="query-params")  # fmt: skip
    left, right = st.columns([2, 3], gap="large")
    with left:
        if not saturated:
            _pictures(subject, course, request, int(moment))
    with right:
        figure = chain_figure(course.values.numpy(), course.what, course.data.numpy(), int(moment))
        st.plotly_chart(figure, key=f"values {subject.uri}", config={"displayModeBar": False},
                        alt=f"The {course.what} of the chains of {subject.label} over their steps")  # fmt: skip
        st.caption("Each chain in blue, their mean in orange" + (
            "; in green the middle 90 % of validation images and their median." if len(course.data) else "."
        ))  # fmt: skip
        st.markdown("\n".join(f"- {line}" for line in statistics(course)))


def _pictures(subject: Subject, course: Course, request: Request, moment: int) -> None:
    k = course.moments.index(moment)
    if k not in course.drawn:
        course.drawn[k] = strip([
            _shown(x, f"chain {i} of {subject.label} after {moment} steps", "" if course.classes is None
                   else str(course.classes[k][i - 1]))
            for i, x in enumerate(course.frames[k], 1)
        ])  # fmt: skip
    st.html(course.drawn[k])
    if course.classes is not None:
        st.caption(f"Under each image: the class of most of its {chains.NEIGHBOURS} nearest training images.")
    name = (f"{subject.label.replace('/', '-')}-chains-{request.start.lower().replace(' ', '-')}-n{request.n}-seed"
            f"{request.seed}-temperature{request.temperature:g}-step{moment}.png")  # fmt: skip
    st.download_button("PNG", lambda: _grid(course.frames[k]), name, "image/png", f"png {subject.uri}",
                       "All chains at this step, in one picture.", on_click="ignore",
                       icon=":material/download:")  # fmt: skip


def _grid(frame: Tensor) -> bytes:
    return images.png(images.grid_picture(frame, math.ceil(math.sqrt(len(frame))), 480))


def statistics(course: Course) -> list[str]:
    """How the chains mix, a sentence each."""
    count, last = course.values.shape[1], len(course.values) - 1
    lines = []
    time = course.autocorrelation_time
    if math.isinf(time):
        lines.append(f"The {course.what} never changes: these chains stand still.")
    elif course.under_way:
        lines.append(f"The {course.what} still moves in one direction: these chains have not arrived, and nothing can "
                     "be said of how they mix. Run more steps.")  # fmt: skip
    else:
        least = "at least " if time > len(course.settled) / 20 else ""
        lines.append(f"Autocorrelation time of the {course.what}: **{least}{time:.1f} steps**, so {count} chains of "
                     f"{last} steps are worth about {max(1, count * len(course.settled) / time):,.0f} independent "
                     "images.")  # fmt: skip
    if (changed := course.changed_class) is not None:
        lines.append(f"**{changed:.0%}** of the chains ended in another class than after a tenth of the steps.")
    end, data = course.values[-1], course.data
    if len(data):
        error = math.hypot(float(end.std()) / math.sqrt(len(end)) if len(end) > 1 else 0.0,
                           float(data.std()) / math.sqrt(len(data)))  # fmt: skip
        lines.append(f"Mean {course.what} at the end: {end.mean():.2f}; of {len(data)} validation images "
                     f"{data.mean():.2f} (difference {end.mean() - data.mean():+.2f} ± {error:.2f}).")  # fmt: skip
    return lines


def _shown(x: Tensor, description: str, caption: str = "") -> Shown:
    width = x.shape[-1] * images.enlargement(*x.shape[-2:], SIDE)
    return Shown(images.image_png(x, SIDE), description, width, caption)
