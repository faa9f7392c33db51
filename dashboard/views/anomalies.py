"""Anomalies: how strange models find uploaded images, with p-values, verdicts and heat maps.

Uploads and all that is computed from them stay in this browser session's memory: never on disk, never in a cache that
sessions share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import streamlit as st

from dashboard import loading, offers, polarity, scoring, trained_on
from dashboard.choices import pick_models, say_if_gone, version_name, with_former
from dashboard.example_images import NORMAL, example_sets
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.page import guarded, plain, sentence
from dashboard.scoring import FORMER_SCORES, Picture, ScoreBook, Sight, Subject
from dashboard.uploads import PRIVACY, uploaded_pictures
from dashboard.views.anomaly_results import Results, draw
from gdm_core.anomaly import get_scorer, rate_warning, scorers_for, smallest_p
from gdm_core.data import ImageDataset
from gdm_core.registry import model_class
from gdm_core.storage import StorageError
from pipelines.tracker import StoreError
from pipelines.tracking import ModelVersion

FIRST_EXAMPLES = (NORMAL, "shuffled pixels", "pasted block")
MAIN_SCORE = "The main score of each model"
FALSE_DISCOVERY_HELP = (
    "Off: each image by itself is flagged if its p-value is at most the rate, so among 100 normal images about as many "
    "are flagged as the rate says. On (Benjamini and Hochberg, 1995): over all images shown, the expected share of "
    "normal images among the flagged ones is at most the rate."
)


def render() -> None:
    """Controls, then verdicts, the images with their heat maps, the table and the histogram."""
    versions = loading.versions()
    offered = [v for v in offers.able(versions) if scorers_for(model_class(v.architecture))]
    if not offered:
        offers.say_nothing_registered("score images")
        return
    say_if_gone(versions)
    chosen, scorer_names = _models_and_scores(offered)
    offers.say_unknown(versions)
    subjects = _subjects(chosen)
    files, kinds = _images_wanted(chosen)
    if not subjects:
        st.info("Choose at least one model that was calibrated.", icon=":material/touch_app:")
        return
    pictures = _pictures(files, kinds, chosen, sorted({subject.format for subject in subjects}))
    rate, false_discovery = _rate(subjects)
    if not pictures:
        st.info("Upload images, or pick built-in examples.", icon=":material/add_photo_alternate:")
        return
    sights = polarity.sights(subjects, pictures)
    _scores_then_results(Request(subjects, scorer_names, pictures, sights, rate, false_discovery))


class Request:
    """What is asked of this page."""

    def __init__(
        self, subjects: list[Subject], scorer_names: list[str], pictures: list[Picture], sights: dict[str, Sight],
        rate: float, false_discovery: bool,
    ) -> None:  # fmt: skip
        self.pairs = [(one, scorer) for one in subjects for scorer in one.chosen_scorers(scorer_names)]
        self.pictures, self.sights, self.rate, self.false_discovery = pictures, sights, rate, false_discovery

    @property
    def key(self) -> tuple:
        """What the scores depend on: the rate is not among it."""
        pairs = tuple((one.uri, scorer.name) for one, scorer in self.pairs)
        return pairs, tuple(seen.digests for seen in self.sights.values())


def _models_and_scores(offered: Sequence[ModelVersion]) -> tuple[list[ModelVersion], list[str]]:
    left, right = st.columns([3, 2])
    with left:
        chosen = pick_models(offered, default=_usual_models, most=8)
    known = {entry.name: entry for v in chosen or offered for entry in scorers_for(model_class(v.architecture))}
    with right:
        names = st.multiselect(
            "Scores", with_former("scores", list(known), FORMER_SCORES), key="scores", format_func=_score_label,
            placeholder=MAIN_SCORE, bind="query-params",
            help="\n\n".join(f"**{plain(e.label)}**: {plain(e.description)}" for e in known.values()),
        )  # fmt: skip
    return chosen, [FORMER_SCORES.get(name, name) for name in names]


def _usual_models(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The model to begin with: of the newest data set, the one with the best exact likelihood, if any has one."""
    newest = offers.newest_dataset(versions)
    exact = [v for v in newest if v.likelihood_kind == "exact" and v.validation_mean is not None]
    return [max(exact, key=lambda v: v.validation_mean)] if exact else newest[:1]


def _score_label(name: str) -> str:
    return name if name in FORMER_SCORES else get_scorer(name).label


def _subjects(chosen: Sequence[ModelVersion]) -> list[Subject]:
    """The models that can give verdicts; about each other one there is a sentence."""
    subjects = []
    for version, loaded in offers.load(chosen):
        name = version_name(version)
        try:
            subject = scoring.subject(name, version.uri, loaded.stored, loaded.lock)
        except ValueError as error:
            st.error(f"**{plain(name)}**: {sentence(error)}", icon=":material/error:")
            continue
        if subject.scorers:
            subjects.append(subject)
        else:
            st.warning(f"**{plain(name)}** was registered without calibration scores, so it cannot say what is normal: "
                       "train it again, or choose another model.", icon=":material/rule:")  # fmt: skip
    return subjects


def _images_wanted(chosen: Sequence[ModelVersion]) -> tuple[list, list[str]]:
    left, right = st.columns([3, 2])
    files = left.file_uploader(
        "Your images: PNG, JPEG, WebP, BMP, GIF, TIFF, or a zip of them", accept_multiple_files=True, key="uploads",
        help=PRIVACY,
    )  # fmt: skip
    with right:
        kinds = _example_kinds(chosen, bool(files))
    return files, kinds


def _example_kinds(chosen: Sequence[ModelVersion], has_uploads: bool) -> list[str]:
    try:
        sets = example_sets(_dataset(chosen))
    except (StoreError, StorageError, ValueError) as error:
        st.caption(f"No built-in examples: {sentence(error)}")
        return []
    kinds = st.pills(
        "Built-in examples", list(sets), selection_mode="multi", default=[k for k in FIRST_EXAMPLES if k in sets],
        key="examples", bind="query-params", wrap=True,
        help="Validation images of the data set, and odd ones made of them.",
    )  # fmt: skip
    if has_uploads and not st.toggle("Show the examples beside my images", key="beside", bind="query-params"):
        return []
    return [kind for kind in sets if kind in kinds]


def _dataset(chosen: Sequence[ModelVersion]) -> ImageDataset:
    """The data set of the first model chosen."""
    if not chosen:
        raise ValueError("choose a model first")
    return trained_on.dataset(loading.model(chosen[0].uri).stored.card)


def _pictures(
    files: list, kinds: list[str], chosen: Sequence[ModelVersion], formats: list[scoring.Format]
) -> list[Picture]:
    pictures = uploaded_pictures(files, formats, "anomalies", tell=False)
    if kinds:
        data = _dataset(chosen)
        for kind in kinds:
            pictures = pictures + scoring.example_pictures(example_sets(data)[kind], data.levels, kind, formats)
    return pictures


def _rate(subjects: list[Subject]) -> tuple[float, bool]:
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    usual = math.ceil(scoring.usual_rate(subjects) * 10_000 - 1e-9) / 100
    percent = left.number_input(
        "False-alarm rate, %", 0.01, 50.0, usual, 0.5, format="%.2f", key="rate", bind="query-params",
        help="How many of a hundred normal images may be flagged by mistake.",
    )  # fmt: skip
    false_discovery = right.toggle(
        "Control the false-discovery rate", key="fdr", bind="query-params",
        help=FALSE_DISCOVERY_HELP,
    )  # fmt: skip
    rate = float(percent) / 100
    warnings = {rate_warning(rate, subject.calibration.count) for subject in subjects} - {None}
    for warning in sorted(warnings):
        st.warning(plain(warning), icon=":material/rule:")
    return rate, bool(false_discovery)


def _scores_then_results(request: Request) -> None:
    if "_scores" not in st.session_state:
        st.session_state["_scores"] = ScoreBook()
    book: ScoreBook = st.session_state["_scores"]
    job = session_jobs().keep("scores", request.key, partial(_score_all, request=request, book=book))
    watch([job], partial(_wait_for, job))
    if job.result is None:
        return
    judged = [
        scoring.judge(subject, scorer, scores, request.rate, request.false_discovery)
        for (subject, scorer), scores in zip(request.pairs, job.result, strict=True)
    ]
    _false_discovery_note(request)
    results = Results(request.pictures, request.sights, judged, request.rate, request.false_discovery, book, job.drawn)
    st.fragment(guarded(draw))(results)


def _wait_for(job: Job) -> None:
    show_state(job, "scores", partial(session_jobs().forget, "scores"))


def _score_all(job: Job, request: Request, book: ScoreBook) -> list:
    total, done = len(request.pairs) * len(request.pictures), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        job.report(done / total)

    return [book.scores(subject, scorer, request.sights[subject.uri], report) for subject, scorer in request.pairs]


def _false_discovery_note(request: Request) -> None:
    """How many images must be very strange before Benjamini and Hochberg's procedure can flag one."""
    count = len(request.pictures)
    smallest = max(smallest_p(subject.calibration.count) for subject, _ in request.pairs)
    needed = math.ceil(smallest * count / request.rate - 1e-9)
    if request.false_discovery and 1 < needed <= count and smallest <= request.rate:
        st.caption(f"With {count} images and a smallest possible p-value of {smallest:.3g}, at least {needed} images "
                   "have to be that strange before any is flagged.")  # fmt: skip
