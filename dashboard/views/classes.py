"""Classes: which class a model finds images to be of and how sure it is, how often it is right, images of a class."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import partial

import streamlit as st
import torch

from dashboard import images, loading, offers, one_image, polarity
from dashboard.choices import pick_model, pick_one, say_if_gone
from dashboard.class_bars import Belief, belief_cards, percent
from dashboard.class_beliefs import (
    TEST_IMAGES,
    Drawn,
    Knowledge,
    Measured,
    believing,
    drawing,
    knowing,
    measuring,
)
from dashboard.gallery import Shown, strip
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.page import plain
from dashboard.scoring import Picture, Sight, Subject, example_pictures
from dashboard.trained_on import dataset_or_word
from dashboard.uploads import PRIVACY, uploaded_pictures
from gdm_core.contract import Classifies
from gdm_core.data import ImageDataset

TEST, UPLOAD = "Test images", "Upload"
SIDE, MOST, USUAL, DRAWN = 112, 48, 6, 12
ABILITY, EXAMPLE = "say which class an image belongs to", "conditional_gated_pixel_cnn"
LOG_LOSS_HELP = "The mean of -log p(true class | image): 0 for a model that is always right and sure of it."
SEED_HELP = "One seed gives the same images every time."


@dataclass(frozen=True, eq=False)
class Asked:
    """Images to be classified, what the model sees of them, and their true classes where they are known."""

    pictures: list[Picture]
    sight: Sight | None
    truths: list[int | None]


def render() -> None:
    """A model and images, the classes of each, how well the model does on test images, and its images of a class."""
    versions = loading.versions()
    offered = offers.able(versions, Classifies)
    offers.say_who_can(versions, offered, Classifies, ABILITY, EXAMPLE)
    if not offered:
        return
    say_if_gone(versions)
    version = pick_model(offered, key="models")
    offers.say_unknown(versions)
    subjects = one_image.alike(offers.load([version] if version else []))
    if not subjects:
        return
    subject, data = subjects[0], dataset_or_word(subjects[0].stored.card, "test")
    asked = _asked(subject, data)
    known = _keep("about", subject.uri, knowing(subject.stored.model, subject.lock))
    jobs = {"about": known}
    if asked.sight is not None:
        wanted = subject.uri, asked.sight.digests
        jobs["beliefs"] = _keep("beliefs", wanted, believing(subject.stored.model, subject.lock, asked.sight.x))
    watch(list(jobs.values()), partial(_beliefs, jobs, asked, data))
    if known.result is not None:
        _measures_and_samples(subject, data, known.result)


def _keep(what: str, wanted: object, work) -> Job:
    return session_jobs().keep(f"classes {what}", wanted, work)


def _finished(what: str, job: Job) -> bool:
    key = f"classes {what}"
    return show_state(job, key, partial(session_jobs().forget, key))


def _names(data: ImageDataset | None, classes: int) -> list[str]:
    """What the classes are called: their numbers where the data set does not say."""
    if data is not None and len(data.class_names) == classes:
        return list(data.class_names)
    return [str(number) for number in range(classes)]


# --- images -----------------------------------------------------------------------------------------------------------


def _asked(subject: Subject, data: ImageDataset | None) -> Asked:
    """Test images or uploads, brought to the model's size, channels and polarity."""
    sources = [TEST, UPLOAD] if data is not None else [UPLOAD]
    if st.session_state.get("image") not in sources:
        st.session_state.pop("image", None)
    source = st.segmented_control(
        "Images", sources, default=sources[0], required=True, key="image", bind="query-params"
    )
    if source == UPLOAD:
        pictures = _uploaded(subject)
        truths: list[int | None] = [None] * len(pictures)
    else:
        pictures, truths = _test_images(subject, data)
    sight = polarity.sights([subject], pictures)[subject.uri] if pictures else None
    return Asked(pictures, sight, truths)


def _uploaded(subject: Subject) -> list[Picture]:
    files = st.file_uploader(
        "Your images: PNG, JPEG, WebP, BMP, GIF, TIFF, or a zip of them", accept_multiple_files=True, key="uploads",
        help=PRIVACY,
    )  # fmt: skip
    pictures = uploaded_pictures(files, [subject.format], "classes")
    if not files:
        st.info("Upload images, or choose test images.", icon=":material/add_photo_alternate:")
    if len(pictures) > MOST:
        st.caption(f"The first {MOST} of {len(pictures)} images are shown.")
    return pictures[:MOST]


def _test_images(subject: Subject, data: ImageDataset) -> tuple[list[Picture], list[int | None]]:
    test = data.splits["test"]
    last = len(test) - 1
    if st.session_state.get("number", 0) > last:  # of another model's larger data set
        st.session_state["number"] = 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = st.number_input(f"From number (0 to {last})", 0, last, 0, key="number", bind="query-params", width=200)
        count = st.number_input("How many", 1, MOST, USUAL, key="n", bind="query-params", width=150)
        st.button("Others by chance", on_click=_others, args=(last,), icon=":material/casino:")
    rows = list(range(int(number), min(int(number + count), last + 1)))
    made = example_pictures(test.images[rows], data.levels, "test image", [subject.format])
    pictures = [replace(picture, name=f"test image {row}") for row, picture in zip(rows, made, strict=True)]
    return pictures, [None] * len(rows) if test.labels is None else test.labels[rows].tolist()


def _others(last: int) -> None:
    st.session_state["number"] = secrets.randbelow(last + 1)


# --- what the model makes of them -------------------------------------------------------------------------------------


def _beliefs(jobs: dict[str, Job], asked: Asked, data: ImageDataset | None) -> None:
    finished = [_finished(what, job) for what, job in jobs.items()]
    if not all(finished) or asked.sight is None:
        return
    log_prob = jobs["beliefs"].result
    names = _names(data, log_prob.shape[1])
    st.html(belief_cards([
        Belief(_shown(x, f"{picture.name} as the model sees it", picture.name), row, _class_or_none(truth, names))
        for picture, x, row, truth in zip(asked.pictures, asked.sight.x, log_prob, asked.truths, strict=True)
    ], names))  # fmt: skip


def _class_or_none(truth: int | None, names: list[str]) -> int | None:
    return truth if truth is not None and 0 <= truth < len(names) else None


def _shown(image: torch.Tensor, description: str, caption: str) -> Shown:
    width = image.shape[-1] * images.enlargement(*image.shape[-2:], SIDE)
    return Shown(images.image_png(image, SIDE), description, width, caption)


def _measures_and_samples(subject: Subject, data: ImageDataset | None, known: Knowledge) -> None:
    jobs: dict[str, Job] = {}
    model, lock = subject.stored.model, subject.lock
    test = data.splits["test"] if data is not None else None
    names = _names(data, known.classes)
    if test is not None and test.labels is not None and int(test.labels.max()) < known.classes:
        x, labels = subject.stored.treatment(test.images[:TEST_IMAGES]), test.labels[:TEST_IMAGES]
        jobs["test"] = _keep("test", subject.uri, measuring(model, lock, x, labels))
        watch([jobs["test"]], partial(_measured, jobs["test"], subject, data, known.classes))
    elif test is not None:
        st.caption("The test images have no labels of these classes, so nothing can be said on how often it is right.")
    st.subheader("Images of a class", anchor=False)
    if not known.draws_classes:
        st.caption("This model says which class an image has, but draws no images of a chosen class.")
        return
    label, seed = _class_and_seed(names)
    if label is None:
        return
    job = _keep("samples", (subject.uri, label, seed), drawing(model, lock, DRAWN, label, seed))
    watch([job], partial(_samples, job, names[label], label, seed))


def _measured(job: Job, subject: Subject, data: ImageDataset, classes: int) -> None:
    st.subheader("On test images", anchor=False)
    if not _finished("test", job):
        return
    result: Measured = job.result
    (accuracy, error), (loss, loss_error) = result.accuracy, result.log_loss
    left, right = st.columns(2)
    left.metric("Accuracy", f"{accuracy:.1%} ± {error:.1%}")
    right.metric("Log loss, nats per image", f"{loss:.3f} ± {loss_error:.3f}", help=LOG_LOSS_HELP)
    count, chance = len(result.correct), torch.tensor(float(classes)).log()
    st.caption(
        f"On the first {count} of the {len(data.splits['test'])} images of the test split of {plain(data.name)} "
        f"({plain(subject.stored.treatment.label)}), classified here and now; ± is one standard error over images. "
        f"Guessing evenly among {classes} classes: {1 / classes:.1%} and {chance:.3f} nats."
    )


def _class_and_seed(names: list[str]) -> tuple[int | None, int]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = pick_one("Class", names, names[0], "class")
        seed = int(st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", help=SEED_HELP, bind="query-params", width=200))
        st.button("Draw anew", on_click=_new_seed, icon=":material/casino:", help="With a new seed.")
    return (names.index(name) if name in names else None), seed


def _new_seed() -> None:
    st.session_state["seed"] = secrets.randbelow(100_000)


def _samples(job: Job, name: str, label: int, seed: int) -> None:
    finished = _finished("samples", job)
    drawn: Drawn | None = job.result
    forming = drawn.images if drawn is not None else job.preview
    if forming is None:
        return
    own = [""] * len(forming) if drawn is None else [percent(float(row[label])) for row in drawn.log_prob]
    st.html(strip([
        _shown(image, f"sample {i} of class {name}, seed {seed}", said)
        for i, (image, said) in enumerate(zip(forming, own, strict=True), 1)
    ]))  # fmt: skip
    if finished:
        right = int((drawn.log_prob.argmax(1) == label).sum())
        st.caption(f"{len(forming)} images drawn given the class {plain(name)}. Under each: how likely the model finds "
                   f"it to be of this class, which is its first choice for {right} of them.")  # fmt: skip
