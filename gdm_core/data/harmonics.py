"""Harmonics: short sounds made here, a fundamental and its overtones with a little noise, as images of one row.

    s_t = sum_k a_k sin(2 pi (k f t + phi_k)) + 0.01 e_t,    k = 1..4, e_t standard normal, t = 0..255

with f from 4 to 16 cycles in 256 samples, phi_k uniform and a_k / a_1 uniform up to 1 / k, scaled so that the loudest
sample of each sound lies between 0.25 and 0.95, and companded by the mu-law to 256 levels. The class is the quarter of
an octave that f lies in.

In bits a sample, on the test sounds: 7.3 for independent values of one distribution, 5.5 for a first-order Markov chain
of counts, and 2.2 for one who is told every sound and only has to say the noise; no model can be better than that.
"""

from __future__ import annotations

import numpy as np
import torch

from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.mu_law import compand
from gdm_core.data.splits import deal

SIZES = {"train": 2000, "validation": 250, "calibration": 250, "test": 500}
SAMPLES, LEVELS = 256, 256
OVERTONES, NOISE = 4, 0.01
LOWEST = 4.0  # cycles in all the samples
CLASSES, CLASSES_AN_OCTAVE = 8, 4


def load_harmonics(seed: int, specification: dict) -> ImageDataset:
    """(1, 1, 256), 256 levels, 2,000 / 250 / 250 / 500 sounds of 8 pitches; the seed decides sounds and splits."""
    random = np.random.RandomState(seed)  # numpy never changes this old generator's stream
    labels = np.arange(sum(SIZES.values())) % CLASSES
    sounds = make_sounds(labels, random)
    sounds += NOISE * random.standard_normal(sounds.shape)
    images = compand(torch.from_numpy(sounds), LEVELS)[:, None, None]  # (N, 1, 1, T)
    splits = deal(Split(images, torch.from_numpy(labels).long()), SIZES, seed)
    limits = LOWEST * 2 ** (np.arange(CLASSES + 1) / CLASSES_AN_OCTAVE)
    names = tuple(f"{low:.1f} to {high:.1f} cycles" for low, high in zip(limits, limits[1:], strict=False))
    return ImageDataset("harmonics", splits, LEVELS, names, specification=specification, pixels="levels")


def make_sounds(labels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Sounds without noise for classes (N,), (N, T) in [-0.95, 0.95]."""
    count = len(labels)
    cycles = LOWEST * 2 ** ((labels + random.uniform(size=count)) / CLASSES_AN_OCTAVE)  # of the fundamental, (N,)
    overtone = np.arange(1, OVERTONES + 1)
    strength = random.uniform(size=(count, OVERTONES)) / overtone
    strength[:, 0] = 1
    turns = cycles[:, None, None] * overtone[:, None] * np.arange(SAMPLES) / SAMPLES  # (N, overtones, T)
    turns += random.uniform(size=(count, OVERTONES, 1))
    sounds = (strength[..., None] * np.sin(2 * np.pi * turns)).sum(1)
    loudness = random.uniform(0.25, 0.95, size=(count, 1))
    return loudness * sounds / np.abs(sounds).max(1, keepdims=True)
