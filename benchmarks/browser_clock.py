"""A stopwatch inside the browser: when a page first showed what, and how long after an input something appeared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

KINDS = {  # what is counted, and the elements that count once they have a size
    "heading": "h1",
    "table": "[data-testid=stDataFrame]:has(canvas)",
    "chart": "[data-testid=stPlotlyChart]:has(.main-svg)",
    "picture": "[data-testid=stImage] img, [data-testid=stHtml] img",
}
ERRORS = "[data-testid=stException], [data-testid=stAlertContentError]"
QUIET_SECONDS, PATIENCE = 1.0, 60.0

# performance.now() counts from the start of the navigation. Each frame notes when the n-th element of a kind appeared.
CLOCK = """
(() => {
  if (window !== window.top) return;
  const kinds = KINDS, seen = {}, present = {};
  for (const kind in kinds) seen[kind] = [];
  const clock = window.clock = {seen, present, acted: null, wanted: null, appeared: null};
  performance.setResourceTimingBufferSize(5000);
  for (const event of ["click", "keydown"]) {
    addEventListener(event, () => { if (clock.appeared === null) clock.acted = performance.now(); }, true);
  }
  const shown = (e) => e.getBoundingClientRect().height > 0 && (e.tagName !== "IMG" || e.complete);
  const look = () => {
    const now = performance.now();
    for (const kind in kinds) {
      const count = [...document.querySelectorAll(kinds[kind])].filter(shown).length;
      while (seen[kind].length < count) seen[kind].push(now);
      present[kind] = count;
    }
    if (clock.wanted && clock.appeared === null) {
      const found = [...document.querySelectorAll(clock.wanted.selector)];
      if (found.some((element) => element.textContent.includes(clock.wanted.text))) clock.appeared = now;
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""


def install(page: Page) -> None:
    """Start the clock on every page this tab opens."""
    kinds = "{" + ", ".join(f"{kind}: {selector!r}" for kind, selector in KINDS.items()) + "}"
    page.add_init_script(CLOCK.replace("KINDS", kinds, 1))


def settled_counts(page: Page) -> dict[str, int]:
    """How many elements of each kind the page has once nothing more comes; RuntimeError where it shows an error."""
    before, since, end = None, time.monotonic(), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        now = page.evaluate(
            "() => [document.querySelector('[data-testid=stApp]')?.dataset.testScriptState,"
            " Object.fromEntries(Object.entries(window.clock.seen).map(([kind, times]) => [kind, times.length]))]"
        )
        if now != before or now[0] != "notRunning":
            before, since = now, time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            _check_errors(page)
            return page.evaluate("() => window.clock.present")  # without the previews that went again
        page.wait_for_timeout(50)
    raise RuntimeError(f"{page.url} did not come to rest within {PATIENCE:.0f} s")


def load_times(page: Page, url: str, counts: dict[str, int]) -> dict[str, list[float]]:
    """Open a page; seconds from the start of the navigation until the n-th element of each kind was shown."""
    page.goto(url, wait_until="commit")
    page.wait_for_function(
        "(counts) => window.clock && Object.entries(counts).every(([kind, n]) => window.clock.seen[kind].length >= n)",
        arg=counts, timeout=1000 * PATIENCE, polling=50,
    )  # fmt: skip
    seen = page.evaluate("() => window.clock.seen")
    return {kind: [t / 1000 for t in times[: counts[kind]]] for kind, times in seen.items()}


def until_shown(page: Page, act: Callable[[], Any], selector: str, text: str) -> float:
    """Seconds from the last click or key of `act` until an element with this text is there, which was not before."""
    _want(page, selector, text)
    act()
    _wait(page)
    return page.evaluate("() => window.clock.appeared - window.clock.acted") / 1000


def until_shown_after_upload(page: Page, act: Callable[[], Any], selector: str, text: str) -> tuple[float, float]:
    """Seconds from the end of the last upload, and from the start of the first, until an element with this text."""
    _want(page, selector, text)
    act()
    _wait(page)
    return tuple(page.evaluate(
        "() => { const sent = performance.getEntriesByType('resource').filter((e) => e.name.includes('upload_file'));"
        " return [window.clock.appeared - Math.max(...sent.map((e) => e.responseEnd)),"
        " window.clock.appeared - Math.min(...sent.map((e) => e.startTime))].map((t) => t / 1000); }"
    ))  # fmt: skip


def _want(page: Page, selector: str, text: str) -> None:
    if any(text in shown for shown in page.locator(selector).all_text_contents()):
        raise RuntimeError(f"{text!r} is on {page.url} already: its appearance cannot be timed")
    page.evaluate(
        "([selector, text]) => Object.assign(window.clock, {acted: null, appeared: null, wanted: {selector, text}})",
        [selector, text],
    )


def _wait(page: Page) -> None:
    page.wait_for_function("() => window.clock.appeared !== null", timeout=1000 * PATIENCE, polling=50)


def _check_errors(page: Page) -> None:
    problems = page.locator(ERRORS).all_inner_texts()
    if problems:
        raise RuntimeError(f"{page.url} shows an error: {problems[0]}")
