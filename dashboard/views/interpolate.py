"""Interpolate: from one image to another through a latent space, by two ways, and a random walk in it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial

import streamlit as st

from dashboard import latent_paths, loading, offers
from dashboard.choices import pick_models, say_if_gone, version_name
from dashboard.loading import LoadedModel
from dashboard.page import plain
from dashboard.scoring import Format, Picture, example_pictures
from dashboard.trained_on import dataset_or_word
from dashboard.uploads import PRIVACY, uploaded_pictures
from dashboard.views.interpolation_results import Asked, rows, show, walk
from gdm_core.contract import Decodes, Encodes, has
from gdm_core.data.dataset import Split
from pipelines.tracking import ModelVersion

TEST_IMAGES, UPLOADS, POINTS, WALK = "Two test images", "Two uploads", "Two random points", "Random walk"

Loaded = tuple[ModelVersion, LoadedModel]


def render() -> None:
    """Controls, then for each chosen model the images along the way."""
    versions = loading.versions()
    offered = offers.able(versions, Decodes)
    _say_who_can(versions, offered)
    if not offered:
        return
    say_if_gone(versions)
    chosen = pick_models(offered, default=offers.newest_dataset, most=6)
    mode = st.segmented_control(
        "Between", [TEST_IMAGES, UPLOADS, POINTS, WALK], default=_first_mode(chosen), required=True, key="between",
        bind="query-params",
    )  # fmt: skip
    loaded = offers.load(chosen)
    if not chosen:
        st.info("Choose at least one model.", icon=":material/touch_app:")
    elif mode == WALK:
        _walks(loaded)
    elif mode == POINTS:
        _between_points(loaded)
    else:
        _between_images(_with_encoder(loaded), mode)


def _say_who_can(versions: Sequence[ModelVersion], offered: Sequence[ModelVersion]) -> None:
    """Which models have no latent space to walk in, and which registered ones or architectures have."""
    others = sorted({v.name for v in versions} - {v.name for v in offered})
    if not offered:
        can = ", ".join(f"`{name}`" for name in offers.architectures(Decodes))
        so_far = f"None of the registered models ({plain(', '.join(others))}) has a latent space" if others else (
            "No model is registered yet")  # fmt: skip
        st.info(f"{so_far} that images can be decoded from. Architectures that have one: {can}. "
                "Train one: `python -m pipelines train vae --dataset digits`", icon=":material/inbox:")  # fmt: skip
    elif others:
        st.caption(f"Not offered, because they cannot decode a latent code: {plain(', '.join(others))}.")


def _first_mode(chosen: Sequence[ModelVersion]) -> str:
    return TEST_IMAGES if offers.able(chosen, Encodes) or not chosen else POINTS


def _with_encoder(loaded: list[Loaded]) -> list[Loaded]:
    """The models that can turn an image into a code; the others are named, with what they can do."""
    able = [pair for pair in loaded if has(pair[1].model, Encodes)]
    others = [version_name(version) for version, one in loaded if not has(one.model, Encodes)]
    if others:
        st.caption(f"Only between random points and on walks, for lack of an encoder: {plain(', '.join(others))}.")
    return able


def _between_images(loaded: list[Loaded], mode: str) -> None:
    if not loaded:
        return
    ways, steps = _ways_and_steps()
    formats = sorted({_format(one) for _, one in loaded})
    pictures = _uploads(formats) if mode == UPLOADS else _test_images(loaded, formats)
    if len(pictures) < 2:
        return
    between = "uploads" if mode == UPLOADS else f"from{st.session_state['from']}-to{st.session_state['to']}"
    asked = []
    for version, one in loaded:
        ends = [picture.stored[_format(one)] for picture in pictures]
        request = (mode, ways, steps, *(stored.numpy().tobytes() for stored in ends))
        pair = [latent_paths.seen(one, stored) for stored in ends]
        work = rows(partial(latent_paths.between_images, one, ends), ways, steps, pair)
        asked.append(Asked(version, request, work, f"{_file(version)}-path-{between}-steps{steps}"))
    show(asked)


def _between_points(loaded: list[Loaded]) -> None:
    ways, steps = _ways_and_steps()
    seed = _seed()
    show([
        Asked(version, (POINTS, ways, steps, seed),
              rows(partial(latent_paths.between_points, one, seed), ways, steps),
              f"{_file(version)}-path-seed{seed}-steps{steps}")
        for version, one in loaded
    ])  # fmt: skip


def _walks(loaded: list[Loaded]) -> None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    frames = int(left.slider("Frames", 16, 96, 48, 8, key="frames", bind="query-params"))
    play = right.toggle("Play", True, key="play", bind="query-params", help="Off: the walks stand still.")
    seed = _seed()
    show([
        Asked(version, (WALK, seed, frames), walk(one, seed, frames),
              f"{_file(version)}-walk-seed{seed}-frames{frames}")
        for version, one in loaded
    ], bool(play))  # fmt: skip


def _file(version: ModelVersion) -> str:
    return f"{version.name}-{version.version}"


def _ways_and_steps() -> tuple[list[str], int]:
    left, right = st.columns(2)
    ways = left.pills("Way", list(latent_paths.WAYS), selection_mode="multi", default=list(latent_paths.WAYS),
                      key="way", bind="query-params",
                      help="Spherical keeps the length of the codes; linear passes nearer to the prior's mean.")
    steps = right.slider("Steps", 3, 24, 10, key="steps", bind="query-params")
    return [way for way in latent_paths.WAYS if way in ways] or list(latent_paths.WAYS)[:1], int(steps)


def _seed() -> int:
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    seed = left.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params")
    right.button("Other random codes", on_click=_new_seed, icon=":material/casino:")
    return int(seed)


def _new_seed() -> None:
    st.session_state["seed"] = secrets.randbelow(100_000)


def _test_images(loaded: list[Loaded], formats: list[Format]) -> list[Picture]:
    """Two test images of the first model's data set, by their numbers or by chance."""
    data = dataset_or_word(loaded[0][1].stored.card, "test")
    if data is None:
        return []
    test = data.splits["test"]
    last = len(test) - 1
    left, middle, right = st.columns([1, 1, 2], vertical_alignment="bottom")
    rows = [
        left.number_input(f"From test image (0 to {last})", 0, last, 0, key="from", bind="query-params"),
        middle.number_input(f"To test image (0 to {last})", 0, last, _other_class(test), key="to", bind="query-params"),
    ]
    right.button("Two others by chance", on_click=_random_pair, args=(last,), icon=":material/casino:")
    return example_pictures(test.images[[int(place) for place in rows]], data.levels, "test image", formats)


def _other_class(test: Split) -> int:
    """The first image of another class than the first one's; without labels the second image."""
    different = [] if test.labels is None else (test.labels != test.labels[0]).nonzero().flatten().tolist()
    return different[0] if different else min(1, len(test) - 1)


def _random_pair(last: int) -> None:
    st.session_state["from"], st.session_state["to"] = secrets.randbelow(last + 1), secrets.randbelow(last + 1)


def _uploads(formats: list[Format]) -> list[Picture]:
    files = st.file_uploader(
        "Two images: PNG, JPEG, WebP, BMP, GIF, TIFF", accept_multiple_files=True, key="ends",
        help=PRIVACY,
    )  # fmt: skip
    pictures = uploaded_pictures(files, formats, "interpolate")
    if len(pictures) < 2:
        st.info(f"Upload {'two images' if not pictures else 'one more image'}.", icon=":material/add_photo_alternate:")
    elif len(pictures) > 2:
        st.caption(f"The first two are used: {plain(pictures[0].name)} and {plain(pictures[1].name)}.")
    return pictures[:2]


def _format(loaded: LoadedModel) -> Format:
    return tuple(loaded.stored.card.data_shape), loaded.stored.treatment.stored_levels
