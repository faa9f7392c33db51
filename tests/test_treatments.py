"""Pixel treatments: thresholds, expectations and bins are what the formulas say."""

from __future__ import annotations

import json

import pytest
import torch

from gdm_core.data.dataset import Split, TreatedSplit, evaluation_images
from gdm_core.data.treatments import Treatment, treatment_for


def every_level(levels: int) -> torch.Tensor:
    return torch.arange(levels, dtype=torch.uint8).view(-1, 1, 1, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("levels, first_on", [(2, 1), (3, 1), (4, 2), (17, 8), (255, 127), (256, 128)])
def test_threshold_is_on_from_exactly_one_half(levels: int, first_on: int) -> None:
    on = treatment_for("threshold", levels, "binary")(every_level(levels)).flatten()
    assert on.tolist() == [float(k >= first_on) for k in range(levels)]
    assert on.tolist() == [float(k / (levels - 1) >= 0.5) for k in range(levels)]


def test_dynamic_means_converge_to_the_intensities() -> None:
    stored = every_level(17).expand(17, 1, 100, 200)
    drawn = treatment_for("dynamic", 17, "binary")(stored, generator())
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    intensity = torch.arange(17) / 16
    error = (intensity * (1 - intensity) / 20_000).sqrt()
    assert ((drawn.mean((1, 2, 3)) - intensity).abs() <= 4 * error).all()


def test_dynamic_without_a_generator_is_the_threshold() -> None:
    stored = every_level(17)
    assert torch.equal(treatment_for("dynamic", 17, "binary")(stored), treatment_for(None, 17, "binary")(stored))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_round_trip(levels: int) -> None:
    x = treatment_for(None, levels, "levels")(every_level(levels))
    assert x.min() == 0 and x.max() == 1
    assert torch.equal((x * (levels - 1)).round().to(torch.uint8), every_level(levels))


@pytest.mark.parametrize("stored_levels, levels", [(256, 8), (256, 2), (17, 4), (256, 100)])
def test_fewer_levels_are_bins_of_equal_width_in_order(stored_levels: int, levels: int) -> None:
    x = treatment_for("levels", stored_levels, "levels", levels)(every_level(stored_levels)).flatten()
    bins = (x * (levels - 1)).round().long()
    counts = bins.bincount(minlength=levels)
    assert (bins.diff() >= 0).all() and bins[0] == 0 and bins[-1] == levels - 1
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_values_lie_in_their_bins_and_fill_them(levels: int) -> None:
    stored = every_level(levels).expand(levels, 1, 50, 50)
    treatment = treatment_for(None, levels, "real")
    x = treatment(stored, generator())
    assert torch.equal((x.double() * levels).floor().to(torch.uint8), stored) and x.max() < 1
    fraction = x.double() * levels - stored
    assert abs(fraction.mean() - 0.5) < 4 * (1 / 12 / fraction.numel()) ** 0.5
    assert fraction.min() < 0.01 and fraction.max() > 0.99
    assert torch.allclose(treatment(stored), (stored.float() + 0.5) / levels)


def test_the_largest_noise_never_reaches_the_next_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 1 - 2**-24))
    for levels in (2, 17, 256):
        x = treatment_for(None, levels, "real")(every_level(levels), generator())
        assert torch.equal((x.double() * levels).floor().to(torch.uint8), every_level(levels))


def test_labels_say_what_the_pixels_are() -> None:
    labels = [
        treatment_for(*arguments).label
        for arguments in [
            (None, 17, "binary"), ("dynamic", 256, "binary"), ("threshold", 2, "binary"), ("dynamic", 2, "binary"),
            (None, 17, "levels"), (None, 256, "levels", 8), (None, 17, "real"),
        ]
    ]  # fmt: skip
    assert labels == [
        "binary, on if >= 0.5", "binary, sampled anew (dynamic)", "binary, fixed (given)", "binary, fixed (given)",
        "17 levels", "8 levels", "real, dequantised (17 levels)",
    ]  # fmt: skip


def test_treatments_travel_as_json() -> None:
    for treatment in (treatment_for("dynamic", 17, "binary"), treatment_for("levels", 256, "levels", 8)):
        assert Treatment.from_dict(json.loads(json.dumps(treatment.to_dict()))) == treatment
    for wrong in ({}, {"name": "real"}, {"name": "real", "stored_levels": 17, "levels": "17"}, [], None):
        with pytest.raises(ValueError, match="name, stored_levels and levels"):
            Treatment.from_dict(wrong)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("grey", 17, "binary"), "known are threshold, dynamic, levels, real"),
        (("real", 17, "binary"), "use threshold or dynamic"),
        (("dynamic", 17, "levels"), "use levels"),
        ((None, 17, "colour"), "one of binary, levels, real"),
        ((None, 17, "levels", 18), "between 2 and the 17 stored"),
        ((None, 17, "real", 4), "keeps the 17 stored"),
        ((None, 17, "binary", 3), "gives 2 levels"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_choices(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        treatment_for(*arguments)


def test_values_that_are_not_stored_levels_are_refused() -> None:
    treatment = treatment_for(None, 17, "binary")
    with pytest.raises(ValueError, match="0..16, got 17"):
        treatment(torch.full((1, 1, 2, 2), 17, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        treatment(torch.zeros(1, 1, 2, 2))


def test_training_draws_anew_each_epoch_and_repeats_by_seed() -> None:
    split = Split(torch.full((8, 1, 8, 8), 8, dtype=torch.uint8), torch.arange(8))
    data, rows = TreatedSplit(split, treatment_for("dynamic", 17, "binary"), seed=3), torch.tensor([5, 2, 7])
    first, again, later = data.batch(rows, 0), data.batch(rows, 0), data.batch(rows, 1)
    assert len(data) == 8 and first.labels.tolist() == [5, 2, 7]
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, later.images)
    other = TreatedSplit(split, data.treatment, seed=4).batch(rows, 0)
    assert not torch.equal(first.images, other.images)


def test_evaluation_uses_one_fixed_draw() -> None:
    split = Split(torch.full((8, 1, 8, 8), 8, dtype=torch.uint8))
    for name, pixels in (("dynamic", "binary"), ("real", "real")):
        treatment = treatment_for(name, 17, pixels)
        assert torch.equal(evaluation_images(split, treatment), evaluation_images(split, treatment))
        assert not torch.equal(evaluation_images(split, treatment), treatment(split.images))
