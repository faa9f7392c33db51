"""The fully visible sigmoid belief network: its formula, its masked half, and the one optimum it has."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from gdm_core import build_model
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.randomness import seeded_generator
from gdm_core.training import train
from tests.autoregressive_cases import Images, random_model

SHAPE = (2, 2, 2)


def sequences(x: Tensor) -> Tensor:
    """The pixels in raster order, colours in order within a pixel, written out: (N, D)."""
    colours, height, width = SHAPE
    places = [(c, row, column) for row in range(height) for column in range(width) for c in range(colours)]
    return torch.stack([x[:, c, row, column] for c, row, column in places], 1)


@torch.no_grad()
def test_the_density_is_the_formula():
    model = random_model("fvsbn", SHAPE)
    x = (torch.rand(20, *SHAPE) < 0.5).double()
    for image, found in zip(sequences(x), model.log_prob(x), strict=True):
        expected = 0.0
        for i in range(8):
            a = model.bias[i] + sum(model.weight[i, j] * image[j] for j in range(i))
            expected += torch.log(torch.sigmoid((2 * image[i] - 1) * a))
        torch.testing.assert_close(found, expected)


def test_nothing_reads_the_upper_half_of_the_weight():
    model = random_model("fvsbn", SHAPE)
    x = (torch.rand(20, *SHAPE) < 0.5).double()
    before = model.log_prob(x)
    model.loss(Batch(x))["loss"].backward()
    lower = torch.ones(8, 8).tril(-1).bool()
    # nothing is before the first pixel, and the last is before nothing
    assert torch.equal(model.weight.grad != 0, lower) and (model.bias.grad != 0).all()
    with torch.no_grad():
        sampled = model.sample(50, generator=seeded_generator(0))
        model.weight[~lower] = float("nan")
        assert torch.equal(model.log_prob(x), before)
        assert torch.equal(model.sample(50, generator=seeded_generator(0)), sampled)


def test_learning_ends_at_the_logistic_regressions():
    """Oracle: scikit-learn's, one for every pixel on the pixels before it, without a penalty."""
    images = random_model("fvsbn", SHAPE, scale=1.0).sample(400, generator=seeded_generator(1))
    model = build_model("fvsbn", SHAPE).double()
    list(train(model, Images(images), TrainingConfig(epochs=300, batch_size=400, learning_rate=0.1)))
    values, expected = sequences(images).numpy(), 0.0
    for i in range(8):
        inputs = values[:, :i] if i else values[:, :1] * 0
        fitted = LogisticRegression(C=1e8, tol=1e-8, max_iter=1000).fit(inputs, values[:, i])
        expected += fitted.predict_log_proba(inputs)[range(400), values[:, i].astype(int)].mean()
    assert model.log_prob(images).mean().item() == pytest.approx(expected, abs=1e-4)
    assert expected > build_model("fvsbn", SHAPE).log_prob(images.float()).mean() + 0.1
