"""One image for several models: a test image of the first one's data set or an upload, and what each sees of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from dashboard import scoring
from dashboard.choices import version_name
from dashboard.loading import LoadedModel
from dashboard.page import plain, sentence
from dashboard.scoring import Picture, Sight, Subject, example_pictures
from dashboard.trained_on import dataset_or_word
from dashboard.uploads import PRIVACY, uploaded_pictures
from pipelines.tracking import ModelVersion

TEST_IMAGE, UPLOAD = "Test image", "Upload"


def alike(loaded: Sequence[tuple[ModelVersion, LoadedModel]]) -> list[Subject]:
    """The models of the first one's image shape; the others are named."""
    subjects, others = [], []
    for version, one in loaded:
        name = version_name(version)
        try:
            subject = scoring.subject(name, version.uri, one.stored, one.lock)
        except ValueError as error:
            st.error(f"**{plain(name)}**: {sentence(error)}", icon=":material/error:")
            continue
        fits = not subjects or subject.format[0] == subjects[0].format[0]
        (subjects if fits else others).append(subject)
    if others:
        names = ", ".join(plain(one.label) for one in others)
        shape = " x ".join(map(str, subjects[0].format[0]))
        st.caption(f"Not shown, because their images are not {shape} as those of {plain(subjects[0].label)}: {names}.")
    return subjects


def choose_picture(subjects: Sequence[Subject], slot: str) -> Picture | None:
    """A test image by its number or by chance, or an upload; None where there is none yet, and the page says so."""
    source = st.segmented_control(
        "Image", [TEST_IMAGE, UPLOAD], default=TEST_IMAGE, required=True, key="image", bind="query-params"
    )
    formats = sorted({subject.format for subject in subjects})
    return _uploaded(formats, slot) if source == UPLOAD else _test_image(subjects[0], formats)


def sights(subjects: Sequence[Subject], picture: Picture) -> dict[str, Sight]:
    """What each model sees of it, by the model's address; offers to invert what looks inverted."""
    seen = {subject.uri: scoring.sight(subject, [picture]) for subject in subjects}
    if not any(one.suspect[0] for one in seen.values()) or st.session_state.get("image") != UPLOAD:
        return seen
    st.warning(f"{plain(picture.name)} looks inverted, dark and bright exchanged, beside the images the model was "
               "trained on.", icon=":material/invert_colors:")  # fmt: skip
    if not st.toggle("Invert it", key="invert", bind="query-params"):
        return seen
    return {subject.uri: scoring.sight(subject, [picture], scoring.ALL) for subject in subjects}


def _test_image(subject: Subject, formats: Sequence[scoring.Format]) -> Picture | None:
    data = dataset_or_word(subject.stored.card, "test")
    if data is None:
        return None
    test = data.splits["test"]
    last = len(test) - 1
    if st.session_state.get("number", 0) > last:  # of another model's larger data set
        st.session_state["number"] = 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = st.number_input(f"Number (0 to {last})", 0, last, 0, key="number", bind="query-params", width=220)
        st.button("Another by chance", on_click=_another, args=(last,), icon=":material/casino:")
    picture = example_pictures(test.images[[int(number)]], data.levels, "test image", formats)[0]
    return replace(picture, name=f"test image {int(number)}")


def _another(last: int) -> None:
    st.session_state["number"] = secrets.randbelow(last + 1)


def _uploaded(formats: Sequence[scoring.Format], slot: str) -> Picture | None:
    file = st.file_uploader("One image: PNG, JPEG, WebP, BMP, GIF, TIFF", key="upload", help=PRIVACY)
    pictures = uploaded_pictures([file] if file else [], formats, slot)
    if not file:
        st.info("Upload an image, or choose a test image.", icon=":material/add_photo_alternate:")
    if len(pictures) > 1:
        st.caption(f"The first of its images is used: {plain(pictures[0].name)}.")
    return pictures[0] if pictures else None
