"""What is done in the browser and timed: pages opened, widgets moved, images scored."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import record
from browser_clock import install, load_times, settled_counts, until_shown, until_shown_after_upload
from PIL import Image
from playwright.sync_api import BrowserContext, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from dashboard.figures.curves import in_words
from gdm_core.data import load_dataset
from pipelines.starter import DATASET

UPLOADS = 100
WARM_LOADS = 2
TRIES, SCROLL_MILLISECONDS, OPEN_MILLISECONDS = 5, 300, 3000  # of opening a select box


@dataclass(frozen=True)
class Change:
    """A widget moved to and fro between two values, and what the page shows for each: an element and text in it."""

    page: str
    label: str
    name: str  # what it is called in the table
    act: Callable[[Page, str, str], None]  # (page, label, value)
    values: tuple[str, str]
    shown: tuple[tuple[str, str], tuple[str, str]]


def choose(page: Page, label: str, value: str) -> None:
    """Pick an option of a select box; its list closes when the page moves under it, and is opened again then."""
    box = page.get_by_role("combobox", name=label, exact=True)
    option = page.get_by_role("option", name=value, exact=True)
    for _ in range(TRIES):
        box.scroll_into_view_if_needed()
        page.wait_for_timeout(SCROLL_MILLISECONDS)
        box.click()
        try:
            option.click(timeout=OPEN_MILLISECONDS)
            return
        except PlaywrightTimeout:
            page.keyboard.press("Escape")
    raise RuntimeError(f"no option {value!r} could be picked under {label!r} on {page.url}")


def type_number(page: Page, label: str, value: str) -> None:
    field = page.get_by_role("spinbutton", name=label)
    field.fill(value)
    field.press("Enter")


def slide(page: Page, label: str, value: str) -> None:
    page.get_by_role("slider", name=label).press(value)


CLASSIFIERS = {"label_rbm", "conditional_gated_pixel_cnn"}  # none of them is in the starter set
CLASSIFY = Change(
    "classes", "From number", "other images, classified", type_number, ("20", "40"),
    (("img[alt='test image 20 as the model sees it']", ""), ("img[alt='test image 40 as the model sees it']", "")),
)  # fmt: skip


def titled(metrics: tuple[str, str]) -> tuple[tuple[str, str], tuple[str, str]]:
    """Curves of these metrics: by the title of their axis."""
    return (".ytitle", in_words(metrics[0])), (".ytitle", in_words(metrics[1]))


def changes(models: dict[str, str]) -> list[Change]:
    """One or two widgets of every page; `models` maps an architecture to the name pickers show."""
    rbm, nade, cnn = (models[name] for name in ("rbm", "nade", "pixel_cnn"))
    parts, metrics = ("train/kl", "train/reconstruction"), ("train/loss", "validation/log_likelihood")
    caption = "[data-testid=stCaptionContainer]"
    return [
        Change("", "Second", "second model", choose, (nade, cnn),
               (("[data-testid=stMetric]", f"minus {nade}"), ("[data-testid=stMetric]", f"minus {cnn}"))),
        Change("", "Metric", "metric of the curves", choose, parts, titled(parts)),
        Change("samples", "Images", "number of images, drawn anew", type_number, ("9", "16"),
               (("img[alt^='9 samples']", ""), ("img[alt^='16 samples']", ""))),
        Change("interpolate", "Steps", "steps", slide, ("ArrowRight", "ArrowLeft"),
               (("img[alt$='of 11']", ""), ("img[alt$='of 10']", ""))),
        Change("chains", "Chains", "number of chains, run anew", type_number, ("3", "5"),
               (("[data-testid=stMarkdown]", "so 3 chains of"), ("[data-testid=stMarkdown]", "so 5 chains of"))),
        Change("completion", "Completions", "number of completions, drawn anew", type_number, ("3", "5"),
               (("img[alt='mean of 3 completions']", ""), ("img[alt='mean of 5 completions']", ""))),
        Change("surprise", "Row", "row of the chosen pixel", type_number, ("1", "6"),
               (("[data-testid=stMarkdown]", "Row 1, column"), ("[data-testid=stMarkdown]", "Row 6, column"))),
        Change("filters", "Unit", "chosen unit", type_number, ("3", "5"),
               (("img[alt='weights of unit 3, large']", ""), ("img[alt='weights of unit 5, large']", ""))),
        Change("anomalies", "False-alarm rate", "false-alarm rate", type_number, ("10", "5"),
               ((caption, "rate 10.00%"), (caption, "rate 5.00%"))),
        Change("runs", "Metric", "metric of the curves", choose, metrics, titled(metrics)),
        Change("model", "Model", "model", choose, (rbm, nade), ((caption, "rbm ·"), (caption, "nade ·"))),
        *([CLASSIFY] if CLASSIFIERS & models.keys() else []),
    ]  # fmt: skip


def uploads() -> list[dict[str, Any]]:
    """The first 100 validation images as PNG files in memory."""
    data = load_dataset(DATASET)
    files = []
    for index, image in enumerate(data.splits["validation"].images[:UPLOADS, 0]):
        buffer, grey = io.BytesIO(), (image.float() * 255 / (data.levels - 1)).round().byte()
        Image.fromarray(grey.numpy()).save(buffer, "PNG")
        files.append({"name": f"digit-{index}.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    return files


def new_page(context: BrowserContext) -> Page:
    page = context.new_page()
    install(page)
    return page


def measure_loads(context: BrowserContext, urls: dict[str, str], loads: int) -> list[dict[str, Any]]:
    """A row for each page and the yardstick: seconds to its heading, its first and its last table, its last chart."""
    page, counts = new_page(context), {}
    for name, url in urls.items():
        for _ in range(WARM_LOADS):
            page.goto(url)
            counts[name] = settled_counts(page)
    found: dict[str, list] = {name: [] for name in urls}
    for _ in range(loads):
        for name, url in urls.items():
            found[name].append(load_times(page, url, counts[name]))
            settled_counts(page)  # what one page still does must not slow the next one down
    page.close()
    return [_load_row(name, counts[name], times) for name, times in found.items()]


def _load_row(name: str, counts: dict[str, int], loads: list[dict[str, list[float]]]) -> dict[str, Any]:
    def spread(kind: str, place: int) -> dict[str, float] | None:
        return _spread([times[kind][place] for times in loads]) if counts[kind] else None

    return {
        "page": name, "counts": counts, "heading": spread("heading", 0), "table": spread("table", 0),
        "last_table": spread("table", -1), "charts": spread("chart", -1), "pictures": spread("picture", -1),
    }  # fmt: skip


def measure_changes(context: BrowserContext, address: str, models: dict[str, str], times: int) -> list[dict[str, Any]]:
    """Seconds from the last click or key to what the page shows of it, after one change each way as warm-up."""
    return [_measure_change(new_page(context), address, change, times) for change in changes(models)]


def _measure_change(page: Page, address: str, change: Change, times: int) -> dict[str, Any]:
    page.goto(f"{address}/{change.page}")
    settled_counts(page)
    for value in change.values:  # warm-up, both ways
        change.act(page, change.label, value)
        settled_counts(page)
    seconds = []
    for place in itertools.islice(itertools.cycle((0, 1)), times):
        act = partial(change.act, page, change.label, change.values[place])
        seconds.append(until_shown(page, act, *change.shown[place]))
        settled_counts(page)
    page.close()
    return {"page": change.page or "compare", "change": change.name, "seconds": _spread(seconds)}


def measure_scoring(context: BrowserContext, address: str, loads: int) -> dict[str, Any]:
    """Seconds from the last upload's end, and from the first one's start, to the verdicts of 100 images."""
    files, found = uploads(), []
    for _ in range(loads + 1):
        page = new_page(context)
        page.goto(f"{address}/anomalies")
        settled_counts(page)
        field = page.locator("input[type=file]").first
        found.append(until_shown_after_upload(
            page, partial(field.set_input_files, files), "h3", f"of {len(files)} images flagged"
        ))  # fmt: skip
        page.close()
    after, whole = zip(*found[1:], strict=True)
    return {"images": len(files), "after_upload": _spread(list(after)), "with_upload": _spread(list(whole))}


def _spread(values: list[float]) -> dict[str, float]:
    return {**record.spread(values), "count": len(values)}
