"""Pictures in flowing rows as HTML: many small images in one element, crisp at any zoom. No Streamlit in here."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard import images
from gdm_core.anomaly import smallest_p
from gdm_core.anomaly.map_scale import LIT_SHARE

STYLE = """<style>
.gallery {display: flex; flex-wrap: wrap; gap: .75rem; align-items: stretch}
.gallery .card {border: 1px solid rgba(128,128,128,.35); border-radius: .5rem; padding: .5rem; max-width: 100%}
.gallery .card.flagged {border: 2px solid #d1495b; padding: calc(.5rem - 1px)}
.gallery .plain {border: none; padding: 0}
.gallery .pictures {display: flex; gap: .375rem; flex-wrap: wrap}
.gallery figure {margin: 0}
.gallery.row {flex-wrap: nowrap; gap: clamp(2px, .6vw, .5rem)}
.gallery.row figure {flex: 0 1 auto; min-width: 0}
.gallery.row figure.end {margin-right: clamp(2px, 1vw, .75rem)}
.gallery.row figure.end:last-child {margin: 0 0 0 clamp(2px, 1vw, .75rem)}
.gallery img {image-rendering: pixelated; display: block; border-radius: .2rem; max-width: 100%;
  outline: 1px solid rgba(128,128,128,.3)}
.gallery figcaption, .gallery .line {font-size: .8rem; line-height: 1.35; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; opacity: .8}
.gallery .name {font-weight: 600; opacity: 1}
.gallery .flag {font-weight: 600; opacity: 1}
.alarm-text {color: color-mix(in srgb, #d1495b 75%, currentcolor)}  /* red that can be read on bright and dark pages */
.gallery .still {display: none}
.gallery .legend {display: flex; gap: .5rem; align-items: center; font-size: .8rem; opacity: .85; flex-wrap: wrap}
.gallery .scale {white-space: nowrap; display: flex; gap: .4rem; align-items: center}
.gallery .bar {width: 9rem; height: .7rem; border-radius: .2rem; display: inline-block}
.gallery .dark {width: 1.4rem; height: .7rem; border-radius: .2rem; background: #000; display: inline-block;
  border: 1px solid rgba(128,128,128,.5)}
@media (prefers-reduced-motion: reduce) {
  .gallery .moving {display: none}
  .gallery .still {display: block}
}
@media (max-width: 640px) {  /* a telephone: two cards side by side, their pictures as small as that makes them */
  .gallery .card {box-sizing: border-box; width: calc(50% - .375rem)}
  .gallery .card .pictures {flex-wrap: nowrap}
  .gallery .card figure {flex: 0 1 auto; min-width: 0}
  .gallery .card .line:not(.name) {white-space: normal}
}
</style>"""


@dataclass(frozen=True)
class Shown:
    """One image: its bytes, what it is (for those who cannot see it too), and how wide it is shown.

    One that moves has a `still` (PNG) for those who asked their system for less motion.
    """

    png: bytes
    description: str
    width: int
    caption: str = ""
    kind: str = "image/png"
    still: bytes = b""


@dataclass(frozen=True)
class Card:
    """Images that belong together and the lines under them."""

    pictures: Sequence[Shown]
    name: str = ""
    lines: Sequence[str] = ()
    flagged: bool = False
    verdict: str = ""


def gallery(cards: Sequence[Card]) -> str:
    """The cards as HTML that wraps to the width of the page. Every text is escaped."""
    return f'{STYLE}<div class="gallery">{"".join(map(_card, cards))}</div>'


def strip(pictures: Sequence[Shown]) -> str:
    """Pictures without frames."""
    return f'{STYLE}<div class="gallery">{"".join(map(_picture, pictures))}</div>'


def row(pictures: Sequence[Shown], first: Shown | None = None, last: Shown | None = None) -> str:
    """Pictures in one line that shrinks to the width of the page, set off from what it leads from and to."""
    ends = [_picture(end, "end") if end else "" for end in (first, last)]
    return f'{STYLE}<div class="gallery row">{ends[0]}{"".join(map(_picture, pictures))}{ends[1]}</div>'


def map_legend(calibration_images: int) -> str:
    """What the colours of a heat map mean, whose scale was fitted on so many normal images."""
    gradient = images.legend_gradient()
    if smallest_p(calibration_images) > LIT_SHARE:  # too few for a threshold at each place
        dark = f"the strangest place of all {calibration_images} normal images the model was calibrated with"
    else:
        dark = f"{1 - LIT_SHARE:.0%} of normal images at this place"
    return (
        f'{STYLE}<div class="gallery"><div class="legend"><span class="dark"></span> not lit: no stranger than {dark} '
        f'<span class="bar" style="background: {gradient}"></span> lit, up to twice the threshold and more</div></div>'
    )


def weight_legend(gradient: str, limit: float, beyond: float) -> str:
    """What the colours of weights mean; `beyond` is the share of them that lies outside the scale."""
    clipped = f"; {beyond:.1%} of the weights lie beyond and have the last colour" if beyond else ""
    return (
        f'{STYLE}<div class="gallery"><div class="legend"><span class="scale">-{limit:.3g} '
        f'<span class="bar" style="background: {gradient}"></span> +{limit:.3g}</span> '
        f"<span>0 where nothing is drawn, one scale for all units{clipped}</span></div></div>"
    )


def _card(card: Card) -> str:
    width = max(96, sum(picture.width for picture in card.pictures) + 6 * (len(card.pictures) - 1))
    verdict = f'<div class="line{" flag alarm-text" * card.flagged}">{_verdict(card)}</div>' if card.verdict else ""
    lines = "".join(f'<div class="line">{html.escape(line)}</div>' for line in card.lines)
    name = html.escape(card.name)
    heading = f'<div class="line name" title="{name}">{name}</div>' if name else ""
    return (
        f'<div class="card{" flagged" * card.flagged}"><div style="max-width: {width}px">'
        f'<div class="pictures">{"".join(map(_picture, card.pictures))}</div>{heading}{verdict}{lines}</div></div>'
    )


def _verdict(card: Card) -> str:
    return ("&#9873; " if card.flagged else "") + html.escape(card.verdict)


def _picture(shown: Shown, place: str = "") -> str:
    caption = f"<figcaption>{html.escape(shown.caption)}</figcaption>" if shown.caption else ""
    if shown.still:
        pictures = _img(shown, shown.png, shown.kind, "moving") + _img(shown, shown.still, "image/png", "still")
    else:
        pictures = _img(shown, shown.png, shown.kind)
    return f'<figure class="{place}" style="max-width: {shown.width}px">{pictures}{caption}</figure>'


def _img(shown: Shown, content: bytes, kind: str, role: str = "") -> str:
    return (
        f'<img class="{role}" src="{images.data_address(content, kind)}" alt="{html.escape(shown.description)}" '
        f'width="{shown.width}">'
    )
