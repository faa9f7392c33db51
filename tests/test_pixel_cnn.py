"""PixelCNN: what it sees, its dropout, and that it learns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.autoregressive.pixel_cnn import PixelCNN
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import GREY_BINARY, Images, all_images, random_model


def test_dropout_acts_on_the_loss_in_training_and_never_on_the_density():
    model = random_model("pixel_cnn", GREY_BINARY).train()
    model.dropout = 0.5
    x = all_images(GREY_BINARY)[::7]
    assert model.loss(Batch(x))["loss"] != model.loss(Batch(x))["loss"]
    assert torch.equal(model.log_prob(x), model.log_prob(x))


def receptive_fields(shape: tuple, kernel_size: int, blocks: int) -> dict[tuple, set]:
    """What each value (colour, row, column) of a PixelCNN sees, by following its layers as sets."""
    colours, height, width = shape
    places = list(itertools.product(range(colours), range(height), range(width)))

    def earlier(row: int, column: int, reach: int) -> Iterator[tuple[int, int]]:
        for r, c in itertools.product(range(row - reach, row + 1), range(column - reach, column + reach + 1)):
            if (r, c) < (row, column) and r >= 0 and 0 <= c < width:
                yield r, c

    fields = {}
    for g, row, column in places:
        seen = {(k, r, c) for r, c in earlier(row, column, kernel_size // 2) for k in range(colours)}
        fields[g, row, column] = seen | {(k, row, column) for k in range(g)}
    for _ in range(blocks):
        before = fields
        fields = {
            (g, row, column): set().union(
                *(before[k, row, column] for k in range(g + 1)),
                *(before[k, r, c] for r, c in earlier(row, column, 1) for k in range(colours)),
            )
            for g, row, column in places
        }
    return fields


@pytest.mark.parametrize("position_bias", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel_size", "blocks"), [((1, 6, 9), 3, 2), ((1, 5, 5), 7, 0), ((3, 3, 4), 3, 1), ((2, 4, 3), 5, 2)]
)
def test_pixel_cnn_sees_exactly_its_receptive_field(shape, kernel_size, blocks, position_bias):
    """With positive parameters no two paths cancel and no ReLU is shut: a slope is zero only where there is no path."""
    model = PixelCNN(shape, 6, blocks, kernel_size, position_bias=position_bias).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_().add_(0.01)
    slopes = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0, ..., 0], torch.ones(1, *shape).double())
    for place, field in receptive_fields(shape, kernel_size, blocks).items():
        assert {tuple(index) for index in slopes[place][0].nonzero().tolist()} == field, place


def test_the_blind_spot_is_where_the_paper_has_it():
    fields = receptive_fields((1, 6, 9), 3, 2)
    assert (0, 4, 7) not in fields[0, 5, 2] and (0, 2, 5) in fields[0, 5, 2]  # to the right above, beyond the diagonal


def test_every_parameter_of_pixel_cnn_learns():
    model = PixelCNN((1, 4, 4), channels=4, blocks=2)
    model.loss(Batch(torch.randint(2, (8, 1, 4, 4)).float()))["loss"].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_pixel_cnn_learns_two_images():
    """Checkerboards of both phases: the first pixel costs log 2, the others nothing."""
    board = (torch.arange(4)[:, None] + torch.arange(5)) % 2
    data = Images(torch.stack([board, 1 - board])[:, None].float().repeat(16, 1, 1, 1))
    model = PixelCNN((1, 4, 5), channels=8, blocks=1, dropout=0.0)
    for _ in train(model, data, TrainingConfig(epochs=25, batch_size=8, learning_rate=1e-2)):
        pass
    with torch.no_grad():
        assert -model.log_prob(data.images).mean().item() == pytest.approx(math.log(2), abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, "channels must be at least the 3 colours"),
        ({"blocks": -1}, "blocks must be at least 0"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"kernel_size": 1}, "kernel_size must be odd and at least 3, got 1"),
        ({"dropout": 1.0}, "dropout must be at least 0"),
        ({"pixels": "levels", "levels": 1}, "levels must be between 2 and 256"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model("pixel_cnn", (3, 4, 4), **arguments)
