"""Filters: the hidden units of one model as images, the most used first; its weights, or the images that drive them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator
from torch import Tensor

from dashboard import images, loading, offers
from dashboard.choices import pick_model, say_if_gone, version_name
from dashboard.gallery import Shown, strip, weight_legend
from dashboard.hidden_units import IMAGES, Layer, driving_images, measuring, weight_norms
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.jobs import Job
from dashboard.loading import LoadedModel
from dashboard.trained_on import dataset_or_word
from dashboard.weight_colours import clear_png, gradient, laid_out, limit_of, on_white, share_beyond
from gdm_core.contract import Filters, HiddenLayers, has
from gdm_core.data.pictures import curves, grid, is_signal, to_picture
from pipelines.tracking import ModelVersion

MOST_USED, LEAST_USED, LARGEST = "Most used first", "Least used first", "Largest weights first"
SIDE, LARGE_SIDE, DOWNLOAD_COLUMNS = 84, 168, 12
AT_ONCE = (24, 48, 96, 192)
SORTED_BY_NORM = "so nothing is known of how much its units are used, and they are sorted by the norm of their weights"


@dataclass(frozen=True, eq=False)
class Seen:
    """One layer of a model: its units in the order shown, their weights or None, their use on images `x` or None."""

    version: ModelVersion
    number: int  # 1 is next to the image
    order: list[int]
    weights: Tensor | None  # (U, C, H, W)
    layer: Layer | None
    x: Tensor | None


def render() -> None:
    """A model and a layer, its units page by page, and one unit with the images that switch it on most."""
    versions = loading.versions()
    offered = offers.able(versions, Filters)
    offers.say_who_can(versions, offered, Filters, "show hidden units as images", "rbm")
    if not offered:
        return
    say_if_gone(versions)
    version = pick_model(offered, key="models")
    offers.say_unknown(versions)
    loaded = offers.load([version] if version else [])
    if not loaded:
        return
    controls = st.container(horizontal=True, vertical_alignment="bottom")
    seen = _seen(*loaded[0], controls)
    if seen is not None:
        shown = _units(seen, controls)
        _one_unit(seen, shown[0])


def _seen(version: ModelVersion, loaded: LoadedModel, controls: DeltaGenerator) -> Seen | None:
    """The layer that is chosen among the `controls`, None while its use is being measured."""
    with loaded.lock, torch.inference_mode():
        weights = loaded.model.filters().cpu()
    x = _validation_images(loaded)
    job = _measured(loaded, x)
    if job is not None and not job.done:
        return None
    layers: list[Layer] = job.result or [] if job is not None else []
    names = [f"Layer {number}" for number in range(1, len(layers) + 1)] or ["Layer 1"]
    name = _pick_layer(names, controls)
    number = names.index(name) + 1
    layer = layers[number - 1] if layers else None
    if number > 1:
        return Seen(version, number, _order(layer, None, controls), None, layer, x)
    known = layer if layer is not None and len(layer.mean) == len(weights) else None
    return Seen(version, number, _order(known, weights, controls), weights, known, x)


def _pick_layer(names: list[str], controls: DeltaGenerator) -> str:
    if len(names) == 1:
        return names[0]
    if st.session_state.get("layer") not in names:  # of another model
        st.session_state.pop("layer", None)
    return controls.segmented_control("Layer", names, default=names[0], required=True, key="layer", bind="query-params",
                                      help="Layer 1 is next to the image.")  # fmt: skip


def _validation_images(loaded: LoadedModel) -> Tensor | None:
    """The first validation images as the model sees them; None where its units cannot be measured, and it says why."""
    if not has(loaded.model, HiddenLayers):
        st.caption(f"This model does not say which of its units an image switches on, {SORTED_BY_NORM}.")
        return None
    data = dataset_or_word(loaded.stored.card, "validation", f", {SORTED_BY_NORM}")
    return None if data is None else loaded.stored.treatment(data.splits["validation"].images[:IMAGES])


def _measured(loaded: LoadedModel, x: Tensor | None) -> Job | None:
    """The job that measures the use of every unit, drawn while it goes on."""
    if x is None:
        return None
    job = session_jobs().keep("units", (loaded.uri, len(x)), measuring(loaded.model, loaded.lock, x))
    watch([job], partial(_state, job))
    return job


def _state(job: Job) -> None:
    show_state(job, "units", partial(session_jobs().forget, "units"))


def _order(layer: Layer | None, weights: Tensor | None, controls: DeltaGenerator) -> list[int]:
    """The numbers of the units as they are to be shown."""
    if layer is None:
        return weight_norms(weights).argsort(descending=True, stable=True).tolist()
    orders = [MOST_USED, LEAST_USED] + [LARGEST] * (weights is not None)
    if st.session_state.get("order") not in orders:
        st.session_state.pop("order", None)
    chosen = controls.segmented_control(
        "Order", orders, default=MOST_USED, required=True, key="order", bind="query-params"
    )
    if chosen == LARGEST:
        return weight_norms(weights).argsort(descending=True, stable=True).tolist()
    return layer.mean.argsort(descending=chosen == MOST_USED, stable=True).tolist()


# --- many units -------------------------------------------------------------------------------------------------------


def _units(seen: Seen, controls: DeltaGenerator) -> list[int]:
    """The units of one page of them; their numbers."""
    with controls:
        shown, page = _page(seen.order)
    if seen.layer is not None:
        st.markdown(seen.layer.in_words())
    if seen.weights is not None:
        limit = limit_of(seen.weights)
        values = laid_out(seen.weights)[shown]
        pngs, colour = [clear_png(one, limit) for one in values], on_white(values, limit)
        st.html(weight_legend(gradient(), limit, share_beyond(seen.weights, limit)))
    else:
        means = _viewable(driving_images(seen.x, seen.layer, torch.tensor(shown)))
        pngs, colour = [images.png(to_picture(one)) for one in means], means.expand(-1, 3, -1, -1)
        st.caption(f"Each picture is the mean of the {seen.layer.top.shape[1]} validation images that switch the unit "
                   "on most, weighted by how much they do: weights between hidden units are no images.")  # fmt: skip
    what = "weights" if seen.weights is not None else "driving images"
    width = colour.shape[-1] * images.enlargement(*colour.shape[-2:], SIDE)
    st.html(strip([
        Shown(one, f"{what} of unit {unit}, {_use(seen, unit)}", width, f"{unit} · {_use(seen, unit)}")
        for unit, one in zip(shown, pngs, strict=True)
    ]))  # fmt: skip
    _say_captions(seen)
    factor = images.enlargement(*colour.shape[-2:], SIDE)
    file = f"{version_name(seen.version).replace('/', '-')}-layer{seen.number}-units-page{page}.png"
    st.download_button("PNG", images.png(grid(colour, DOWNLOAD_COLUMNS, factor)), file, "image/png", "png",
                       "These units in this order.", "ignore", icon=":material/download:")  # fmt: skip
    return shown


def _page(order: list[int]) -> tuple[list[int], int]:
    """The units on the chosen page, and its number."""
    if len(order) <= AT_ONCE[0]:
        return order, 1
    at_once = st.segmented_control("Units at once", AT_ONCE, default=AT_ONCE[1], required=True, key="n",
                                   bind="query-params")  # fmt: skip
    pages = -(-len(order) // at_once)
    if (st.session_state.get("page") or 1) > pages:
        st.session_state["page"] = 1
    page = 1
    if pages > 1:
        page = int(st.number_input(f"Page (1 to {pages})", 1, pages, 1, key="page", bind="query-params", width=150))
    return order[(page - 1) * at_once : page * at_once], page


def _use(seen: Seen, unit: int) -> str:
    """How much a unit is used, in a word."""
    if seen.layer is None:
        return f"{float(weight_norms(seen.weights[[unit]])[0]):.3g}"
    return f"{float(seen.layer.mean[unit]):.1%}"


def _say_captions(seen: Seen) -> None:
    what = "the norm of its weights" if seen.layer is None else "its mean activation over the validation images"
    st.caption(f"Under each unit: its number and {what}.")


# --- one unit ---------------------------------------------------------------------------------------------------------


def _one_unit(seen: Seen, first: int) -> None:
    """The chosen unit, the first one shown where none is chosen: large, and the images that switch it on most."""
    last = len(seen.order) - 1
    if (st.session_state.get("unit") or 0) > last:  # of another layer
        st.session_state["unit"] = None
    st.subheader("One unit", anchor=False)
    chosen = st.number_input(f"Unit (0 to {last})", 0, last, None, key="unit", placeholder=str(first),
                             bind="query-params", width=150)  # fmt: skip
    unit = first if chosen is None else int(chosen)
    left, right = st.columns([1, 4], gap="medium")
    left.html(strip([_large(seen, unit)]))
    if seen.layer is None:
        right.markdown(f"Unit {unit}: the norm of its weights is {_use(seen, unit)}.")
        return
    right.markdown(f"**Unit {unit}.** {seen.layer.unit_in_words(unit)}")
    rows = seen.layer.top[unit]
    pictures = _viewable(seen.x[rows])
    with right:
        st.html(strip([
            _picture(one, f"validation image {row} switches unit {unit} on to {value:.1%}", SIDE, f"{value:.1%}")
            for one, row, value in zip(pictures, rows.tolist(), seen.layer.top_activation[unit].tolist(), strict=True)
        ]))  # fmt: skip
        st.caption(f"The {len(rows)} validation images that switch it on most, and how much each does.")


def _large(seen: Seen, unit: int) -> Shown:
    if seen.weights is None:
        mean = _viewable(driving_images(seen.x, seen.layer, torch.tensor([unit])))[0]
        return _picture(mean, f"driving images of unit {unit}", LARGE_SIDE, f"unit {unit}")
    values = laid_out(seen.weights)[unit]
    width = values.shape[-1] * images.enlargement(*values.shape, LARGE_SIDE)
    return Shown(clear_png(values, limit_of(seen.weights)), f"weights of unit {unit}, large", width, f"unit {unit}")


def _picture(image: Tensor, description: str, side: int, caption: str) -> Shown:
    width = image.shape[-1] * images.enlargement(*image.shape[-2:], side)
    return Shown(images.png(to_picture(image)), description, width, caption)


def _viewable(pictures: Tensor) -> Tensor:
    """Signals as their curves, images as they are, (N, C, H, W)."""
    return curves(pictures) if is_signal(pictures) else pictures
