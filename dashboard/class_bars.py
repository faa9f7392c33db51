"""p(class | image) as bars beside each image, as HTML that wraps to the width of the page. No Streamlit in here."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dashboard.gallery import Shown, strip

MOST_BARS = 12  # where there are more classes, the likeliest are shown
STYLE = """<style>
.beliefs {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .75rem}
.beliefs .belief {border: 1px solid rgba(128,128,128,.35); border-radius: .5rem; padding: .6rem; min-width: 0}
.beliefs .side {display: flex; gap: .75rem; align-items: flex-start}
.beliefs .bars {flex: 1; min-width: 0; font-size: .75rem; line-height: 1.25}
.beliefs .bar {display: flex; gap: .4rem; align-items: center}
.beliefs .label {flex: 0 0 auto; width: var(--label); text-align: right; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; opacity: .8}
.beliefs .track {flex: 1; height: .55rem; background: rgba(128,128,128,.18); border-radius: .15rem; overflow: hidden}
.beliefs .fill {display: block; height: 100%; background: #8a9694}
.beliefs .best .fill {background: #2a9d78}
.beliefs .best .label, .beliefs .best .value {font-weight: 600; opacity: 1}
.beliefs .value {flex: 0 0 3.2rem; text-align: right; opacity: .8; font-variant-numeric: tabular-nums}
.beliefs .line {font-size: .85rem; line-height: 1.4; margin-top: .4rem; overflow-wrap: anywhere}
</style>"""


@dataclass(frozen=True, eq=False)
class Belief:
    """One image and log p(y | x) of every class in nats, (K,); `truth` is its true class, where that is known."""

    shown: Shown
    log_prob: Tensor
    truth: int | None = None

    @property
    def best(self) -> int:
        """The most likely class."""
        return int(self.log_prob.argmax())


def belief_cards(beliefs: Sequence[Belief], names: Sequence[str]) -> str:
    """A card for each image. Every text is escaped."""
    return f'{STYLE}<div class="beliefs">{"".join(_card(one, names) for one in beliefs)}</div>'


def percent(log_prob: float) -> str:
    """A probability in percent with one digit, said as a bound where that would read as 0 or 100 %."""
    p = math.exp(min(log_prob, 0.0))
    if p > 0.9995:
        return ">99.9%"
    return "<0.1%" if p < 0.0005 else f"{p:.1%}"


def in_words(belief: Belief, names: Sequence[str]) -> str:
    """The most likely class, how sure that is, and whether it is so."""
    best = float(belief.log_prob[belief.best])
    words = f"{names[belief.best]}: {percent(best)}, log p = {min(best, 0.0):.3g} nats"
    if belief.truth is None:
        return words
    return f"{words}; correct" if belief.truth == belief.best else f"{words}; truly {names[belief.truth]}"


def shown_classes(log_prob: Tensor) -> list[int]:
    """The classes with a bar: all in their order, or of many the likeliest, these first."""
    if len(log_prob) <= MOST_BARS:
        return list(range(len(log_prob)))
    return torch.sort(log_prob, descending=True, stable=True).indices[:MOST_BARS].tolist()


def _card(belief: Belief, names: Sequence[str]) -> str:
    classes = shown_classes(belief.log_prob)
    label = min(7, max(1, 0.6 * max(len(names[k]) for k in classes)))
    bars = "".join(_bar(belief, k, names[k]) for k in classes)
    wrong = " wrong alarm-text" * (belief.truth not in (None, belief.best))
    return (
        f'<div class="belief"><div class="side">{strip([belief.shown])}'
        f'<div class="bars" style="--label: {label:.1f}rem">{bars}</div></div>'
        f'<div class="line{wrong}">{html.escape(in_words(belief, names))}</div></div>'
    )


def _bar(belief: Belief, number: int, name: str) -> str:
    log_prob = float(belief.log_prob[number])
    title = html.escape(f"{name}: p = {math.exp(log_prob):.4g}, log p = {log_prob:.4g} nats")
    return (
        f'<div class="bar{" best" * (number == belief.best)}" title="{title}"><span class="label">{html.escape(name)}'
        f'</span><span class="track"><span class="fill" style="width: {100 * math.exp(log_prob):.2f}%"></span></span>'
        f'<span class="value">{html.escape(percent(log_prob))}</span></div>'
    )
