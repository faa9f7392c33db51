"""The harmonics: companding there and back, sounds as they are described, and what simple models make of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gdm_core.data.dataset import ImageDataset
from gdm_core.data.harmonics import CLASSES_AN_OCTAVE, LOWEST, NOISE, SIZES, make_sounds
from gdm_core.data.mu_law import compand, expand
from gdm_core.data.sources import load_dataset
from gdm_core.data.splits import stratified_rows

DIGEST = "7d4b085e0151d369"  # every likelihood ever reported on harmonics is about exactly these bytes


@pytest.fixture(scope="module")
def harmonics() -> ImageDataset:
    return load_dataset("harmonics")


@pytest.fixture(scope="module")
def clean() -> dict[str, torch.Tensor]:
    """The sounds of each split before noise and companding, (N, 256)."""
    labels = np.arange(sum(SIZES.values())) % 8
    sounds = torch.from_numpy(make_sounds(labels, np.random.RandomState(0)))
    rows = stratified_rows(torch.from_numpy(labels), len(labels), SIZES, 0)
    return {name: sounds[chosen] for name, chosen in rows.items()}


def loudness(s: float, mu: int) -> float:
    """F(s) of the mu-law."""
    return math.copysign(math.log(1 + mu * abs(s)) / math.log(1 + mu), s)


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
def test_companding_there_and_back(levels: int) -> None:
    """Every level is its own middle; every value comes back within half a level of where it was, on the law's scale."""
    stored = torch.arange(levels, dtype=torch.uint8)
    assert torch.equal(compand(expand(stored, levels), levels), stored)
    assert (expand(stored, levels).diff() > 0).all()
    signal = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    back = expand(compand(signal, levels), levels)
    mu = levels - 1
    for before, after in zip(signal.tolist(), back.tolist(), strict=True):
        assert abs(loudness(before, mu) - loudness(after, mu)) <= 1 / mu + 1e-9


def test_quiet_values_have_fine_steps_and_loud_ones_are_cut_off() -> None:
    steps = expand(torch.arange(256, dtype=torch.uint8)).diff()
    assert steps.argmin() == 127 and steps[-1] > 200 * steps[127]
    torch.testing.assert_close(steps, steps.flip(0))
    assert compand(torch.tensor([-7.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match="NaN"):
        compand(torch.tensor([0.0, math.nan]))


def test_harmonics_are_made_from_the_seed_alone(harmonics: ImageDataset) -> None:
    assert harmonics.counts == {"train": 2000, "validation": 250, "calibration": 250, "test": 500}
    assert harmonics.data_shape == (1, 1, 256) and harmonics.levels == 256 and harmonics.digest == DIGEST
    assert load_dataset(**harmonics.specification).digest == DIGEST
    assert load_dataset("harmonics", seed=1).digest != DIGEST
    assert len(harmonics.class_names) == 8
    for split in harmonics.splits.values():
        assert ((split.labels.bincount(minlength=8) - len(split) / 8).abs() <= 2).all()


def test_stored_sounds_are_the_clean_ones_with_noise(harmonics: ImageDataset, clean: dict[str, torch.Tensor]) -> None:
    for name, split in harmonics.splits.items():
        difference = expand(split.images)[:, 0, 0] - clean[name]
        assert difference.std().item() == pytest.approx(NOISE, rel=0.15)  # the levels are a part of it
        assert abs(difference.mean().item()) < NOISE / 20
        loudest = clean[name].abs().amax(1)
        assert 0.25 <= loudest.min() and loudest.max() <= 0.95 and loudest.std() > 0.1


def test_the_label_is_the_quarter_of_an_octave_of_the_strongest_tone(
    harmonics: ImageDataset, clean: dict[str, torch.Tensor]
) -> None:
    sounds, labels = clean["train"], harmonics.splits["train"].labels
    spectrum = torch.fft.rfft(sounds * torch.hann_window(256, dtype=torch.float64), 64 * 256).abs()  # 1/64 cycle apart
    cycles = spectrum.argmax(1) / 64
    low = LOWEST * 2 ** (labels / CLASSES_AN_OCTAVE)
    high = low * 2 ** (1 / CLASSES_AN_OCTAVE)
    assert ((cycles > low - 0.3) & (cycles < high + 0.3)).double().mean() > 0.99


def test_what_simple_models_make_of_them(harmonics: ImageDataset, clean: dict[str, torch.Tensor]) -> None:
    """The bits a sample that the data set's own words name: independent, first-order Markov, and the noise alone."""
    train, test = (harmonics.splits[name].images.flatten(1).long() for name in ("train", "test"))
    shares = train.flatten().bincount(minlength=256).double() + 1
    shares /= shares.sum()
    pairs = (256 * train[:, :-1] + train[:, 1:]).flatten().bincount(minlength=256 * 256).view(256, 256).double()
    following = (pairs + 100 * shares) / (pairs.sum(1, keepdim=True) + 100)
    independent = -shares[test].log2().mean().item()
    markov = -(shares[test[:, 0]].log2() + following[test[:, :-1], test[:, 1:]].log2().sum(1)).mean().item() / 256
    assert independent == pytest.approx(7.27, abs=0.02) and markov == pytest.approx(5.51, abs=0.02)
    edges = expand_edges()
    low, high = ((edges[test + side] - clean["test"]) / NOISE for side in (0, 1))
    noise = -(torch.special.ndtr(high) - torch.special.ndtr(low)).clamp_min(1e-300).log2().mean().item()
    assert noise == pytest.approx(2.18, abs=0.02)


def expand_edges() -> torch.Tensor:
    """Where one level ends and the next begins, in amplitude, (257)."""
    middles = 2 * (torch.arange(1, 256, dtype=torch.float64) - 0.5) / 255 - 1
    inner = middles.sign() * ((256 ** middles.abs()) - 1) / 255
    return torch.cat([inner.new_tensor([-math.inf]), inner, inner.new_tensor([math.inf])])
