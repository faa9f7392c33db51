"""Stratified splits by a fixed seed: the same rows on every machine, every class in its share in every split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gdm_core.data.dataset import Split
from gdm_core.data.errors import DataError


def stratified_rows(labels: Tensor | None, count: int, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """Rows 0..count-1 dealt to splits of exactly these sizes, each in ascending order; no row is dealt twice.

    A row of random rank r in a class of n gets the place (r + 1/2) / n; the splits are consecutive stretches of the
    rows ordered by place. So each split holds each class in proportion, to within one or two rows.
    """
    if sum(sizes.values()) > count:
        raise DataError(f"cannot deal {count} images to splits of {dict(sizes)}")
    groups = np.zeros(count, dtype=np.int64) if labels is None else labels.numpy()
    random = np.random.RandomState(seed)  # numpy never changes this old generator's stream: splits are for good
    place = np.empty(count)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        place[random.permutation(rows)] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(list(sizes.values()))
    parts = np.split(order, ends)[: len(sizes)]
    return {name: torch.from_numpy(np.sort(part)) for name, part in zip(sizes, parts, strict=True)}


def deal(split: Split, sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    """A split dealt to several, stratified by its labels where it has any."""
    rows = stratified_rows(split.labels, len(split), sizes, seed)
    return {name: split.take(chosen) for name, chosen in rows.items()}


def shares(count: int, parts: Mapping[str, float], rest: str) -> dict[str, int]:
    """Split sizes: `round(share * count)`, at least 1, for each part; `rest` comes first and gets what is left."""
    sizes = {name: max(1, round(share * count)) for name, share in parts.items()}
    left = count - sum(sizes.values())
    if left < 1:
        raise DataError(f"{count} images are too few to split into {rest}, {', '.join(parts)}")
    return {rest: left} | sizes
