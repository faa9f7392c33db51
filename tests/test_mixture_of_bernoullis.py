"""The mixture of Bernoullis: EM against its definition, and what follows from the posterior over components."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core import build_model
from gdm_core.contract import GenerativeModel, TrainingConfig
from gdm_core.models.autoregressive.mixture_of_bernoullis import BLOCK
from gdm_core.randomness import seeded_generator
from gdm_core.training import train
from tests.autoregressive_cases import Images, all_images, chi_square, random_model

SHAPE = (2, 3, 3)


def mixture(shape: tuple = SHAPE, **arguments) -> GenerativeModel:
    return build_model("mixture_of_bernoullis", shape, **arguments).double()


def two_kinds_of_images(n: int = 60) -> Tensor:
    """Half of them mostly dark, half mostly bright, in no order."""
    bright = torch.where(torch.rand(n, 1, 1, 1) < 0.5, 0.8, 0.25)
    return (torch.rand(n, *SHAPE) < bright).double()


def after_each_epoch(model: GenerativeModel, images: Tensor, epochs: int, batch_size: int = 7) -> list[Tensor]:
    """pi (K) and mu (K, D) after every epoch, joined to (K, 1 + D)."""
    states = []
    for progress in train(model, Images(images), TrainingConfig(epochs=epochs, batch_size=batch_size)):
        if progress.end_of_epoch:
            pi, mu = model.weight_logit.detach().softmax(0), model.pixel_logit.detach().sigmoid()
            states.append(torch.cat([pi[:, None], mu.flatten(1)], 1))
    return states


def test_an_epoch_is_one_step_of_em_over_all_images():
    """Oracle: the formulas of the docstring with probabilities multiplied out, one image after another."""
    images, s = two_kinds_of_images(), 0.3
    states = after_each_epoch(mixture(components=3, smoothing=s), images, 4)
    for old, new in itertools.pairwise(states):
        pi, mu = old[:, 0], old[:, 1:]
        counts, sums = torch.zeros(3).double(), torch.zeros_like(mu)
        for x in images.flatten(1):
            joint = pi * torch.where(x == 1, mu, 1 - mu).prod(1)
            counts += joint / joint.sum()
            sums += (joint / joint.sum())[:, None] * x
        torch.testing.assert_close(new[:, 0], (counts + s) / (len(images) + 3 * s))
        torch.testing.assert_close(new[:, 1:], (sums + s) / (counts + 2 * s)[:, None])
    assert not torch.allclose(states[0], states[1], atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.01, 0.5, 3.0])
def test_em_never_lowers_the_smoothed_objective(smoothing):
    """sum_n log p(x_n) + s (sum_k log pi_k + sum_kd log mu_kd + log(1 - mu_kd)) rises or stays."""
    images = two_kinds_of_images()
    objective = []
    for state in after_each_epoch(mixture(components=5, smoothing=smoothing), images, 40):
        pi, mu = state[:, 0].log(), state[:, 1:]
        x = images.flatten(1)[:, None]
        log_prob = (pi + (x * mu.log() + (1 - x) * (1 - mu).log()).sum(-1)).logsumexp(1).sum()
        objective.append(log_prob + smoothing * (pi.sum() + mu.log().sum() + (1 - mu).log().sum()))
    steps = torch.stack(objective).diff()
    assert (steps > -1e-9).all()
    assert steps[0] > 0.1


def test_the_size_of_the_batches_plays_no_part_after_the_start():
    images = two_kinds_of_images()
    model = mixture(components=3)
    after_each_epoch(model, images, 1)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    ends = []
    for batch_size in (60, 11, 1):
        model.load_state_dict(start)
        phase = next(iter(model.training_phases(TrainingConfig(epochs=2))))
        phase.update.epoch = 0  # goes on from here, without another start
        for progress, part in zip(range(60), images.split(batch_size), strict=False):
            batch = Images(part).batch(torch.arange(len(part)), 1)
            batch.progress = 0.5 + 0.5 * progress * batch_size / 60
            phase.update(batch)
        ends.append(model.pixel_logit.detach().clone())
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])
    assert not torch.allclose(ends[0], start["pixel_logit"], atol=1e-3)


def test_components_start_at_images_of_their_own():
    """As many components as images: each takes one, so that every image has probability 1 / K but for the smoothing."""
    images = (torch.rand(9, 1, 8, 8) < 0.5).double()
    model = mixture((1, 8, 8), components=9, smoothing=1e-3)
    after_each_epoch(model, images, 3, batch_size=9)
    torch.testing.assert_close(model.log_prob(images), torch.full((9,), -math.log(9)).double(), rtol=0, atol=0.1)


def test_more_components_than_images_in_a_batch():
    states = after_each_epoch(mixture(components=20), two_kinds_of_images(), 3, batch_size=5)
    assert all(state.isfinite().all() for state in states)
    assert len(states[-1].round(decimals=6).unique(dim=0)) > 5


def test_half_precision_autocast_leaves_em_in_float32():
    images, ends = two_kinds_of_images().float(), []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = build_model("mixture_of_bernoullis", SHAPE, components=3)
        list(train(model, Images(images), TrainingConfig(epochs=2, batch_size=16, precision=precision)))
        ends.append(model.pixel_logit)
    assert torch.equal(*ends)


@torch.no_grad()
@pytest.mark.parametrize("dimensions", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_blocks_of_pixels_are_the_density(dimensions):
    model = random_model("mixture_of_bernoullis", (1, 1, dimensions), scale=3.0)
    x = (torch.rand(20, 1, 1, dimensions) < 0.5).double()
    mu, pi = model.pixel_logit.flatten(1).sigmoid(), model.weight_logit.softmax(0)
    expected = (pi * torch.where(x.flatten(1)[:, None] == 1, mu, 1 - mu).prod(-1)).sum(1).log()
    torch.testing.assert_close(model.log_prob(x), expected)
    torch.testing.assert_close(model.log_prob_map(x).flatten(1).sum(1), expected)


@pytest.mark.parametrize("known", ["100010", "000001", "010100", "000000"])
def test_completing_any_mask_follows_the_enumerated_conditional(known):
    shape = (2, 1, 6)
    model, images = random_model("mixture_of_bernoullis", shape), all_images(shape)
    mask = torch.tensor([int(digit) for digit in known]).view(1, 1, 1, 6)
    x = images[1234]
    with torch.no_grad():
        fits = ((images == x) | (mask == 0)).flatten(1).all(1)
        conditional = model.log_prob(images).masked_fill(~fits, -math.inf).log_softmax(0)
    assert model.completion_is_exact(mask)
    drawn = model.complete(x.expand(50_000, *shape), mask, generator=seeded_generator(6))
    statistic, bound = chi_square(drawn, images, conditional)
    assert statistic < bound


@pytest.mark.parametrize("arguments", [{"components": 0}, {"smoothing": 0.0}, {"smoothing": -1.0}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be positive"):
        mixture(**arguments)
