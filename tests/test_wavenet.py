"""WaveNet: its dilated convolutions, what they see, its queues, its dropout, and that it remembers far."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.autoregressive.wavenet import GatedLayer, WaveNet, layers_to_see
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import GREY_BINARY, Images, all_images, random_model


@torch.no_grad()
@pytest.mark.parametrize("dilation", [1, 4, 32])
def test_a_layer_is_a_dilated_convolution_of_width_two(dilation: int) -> None:
    """Against torch's own convolution, over a sequence padded with zeros at its beginning."""
    model = WaveNet((1, 1, 20), channels=3, skip_channels=4, layers=1).double()
    layer = model.layers[0] = GatedLayer(3, 4, dilation, is_last=False).double()
    h = torch.randn(2, 20, 3, dtype=torch.float64)
    model.before.forward = lambda x: h
    kernel = torch.stack(layer.gate.weight.split(3, 1), -1)  # (6, 3, 2): of h_{t-d}, of h_t
    padded = functional.pad(h.transpose(1, 2), (dilation, 0))
    a, b = functional.conv1d(padded, kernel, layer.gate.bias, dilation=dilation).transpose(1, 2).chunk(2, -1)
    skip = layer.skip(a.tanh() * b.sigmoid())
    expected = model.output(model.head(skip.relu()).relu())
    torch.testing.assert_close(model.logits(torch.zeros(2, 1, 1, 20).double())[:, 0, 0], expected)


def test_every_layer_adds_to_what_the_next_one_reads_and_to_the_skips() -> None:
    first, last = GatedLayer(3, 4, 1, is_last=False).double(), GatedLayer(3, 4, 1, is_last=True).double()
    past, h = torch.randn(2, 5, 3, dtype=torch.float64)
    a, b = first.gate(torch.cat([past, h], -1)).chunk(2, -1)
    z = a.tanh() * b.sigmoid()
    deeper, skip = first(past, h)
    torch.testing.assert_close(deeper - h, first.residual(z))
    torch.testing.assert_close(skip, first.skip(z))
    assert last(past, h)[0] is h and last.residual is None


@pytest.mark.parametrize(("stacks", "layers", "reach"), [(1, 1, 2), (1, 3, 8), (2, 2, 7), (3, 1, 4)])
def test_wavenet_sees_exactly_its_receptive_field(stacks: int, layers: int, reach: int) -> None:
    """The value before, and 2^layers - 1 more for each stack."""
    model = WaveNet((1, 1, 12), channels=4, stacks=stacks, layers=layers).double()
    x = torch.rand(1, 1, 1, 12).double()
    slopes = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0, 0, 0, :, 0], x)
    lag = torch.arange(12)[:, None] - torch.arange(12)
    assert torch.equal(slopes[:, 0, 0, 0] != 0, (lag >= 1) & (lag <= reach))


@pytest.mark.parametrize("stacks", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 8, 8), (3, 4, 4), (1, 28, 28), (1, 1, 256)])
def test_by_default_there_are_as_many_layers_as_see_everything_and_no_more(shape: tuple, stacks: int) -> None:
    layers = layers_to_see(math.prod(shape) - 2, stacks)
    assert 1 + stacks * (2**layers - 1) >= math.prod(shape) - 1
    assert layers == 1 or 1 + stacks * (2 ** (layers - 1) - 1) < math.prod(shape) - 1
    assert [layer.dilation for layer in WaveNet(shape, stacks=stacks).layers] == [2**i for i in range(layers)] * stacks


@torch.no_grad()
def test_a_value_costs_one_place_of_each_layer_and_queues_hold_the_dilations() -> None:
    model, seen = WaveNet((2, 3, 4), channels=4, stacks=2), []
    for layer in model.layers:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(tuple(inputs[1].shape)))
    network = model.incremental(5)
    assert [tuple(queue.shape) for queue in network.queues] == [(layer.dilation, 5, 4) for layer in model.layers]
    model.sample(5)
    assert seen == [(5, 4)] * len(model.layers) * model.dimensions


def test_dropout_acts_on_the_loss_in_training_and_never_on_the_density() -> None:
    model = random_model("wavenet", GREY_BINARY).train()
    model.dropout = 0.5
    x = all_images(GREY_BINARY)[::7]
    assert model.loss(Batch(x))["loss"] != model.loss(Batch(x))["loss"]
    assert torch.equal(model.log_prob(x), model.log_prob(x))


def test_wavenet_remembers_as_far_as_it_sees() -> None:
    """Eight bits, then the same again: the second half costs nothing where the field reaches eight values back."""
    torch.manual_seed(0)
    bits = torch.randint(2, (256, 1, 1, 8)).float()
    data = Images(torch.cat([bits, bits], -1))
    cost = {}
    for layers in (3, 2):  # 1 + 7 values, 1 + 3 values
        model = WaveNet((1, 1, 16), channels=16, skip_channels=16, layers=layers, dropout=0.0)
        for _ in train(model, data, TrainingConfig(epochs=15, batch_size=16, learning_rate=1e-2)):
            pass
        with torch.no_grad():
            cost[layers] = -model.log_prob_map(data.images).flatten(1)[:, 8:].sum(1).mean().item()
    assert cost[3] < 0.1 and cost[2] > 6 * math.log(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels, skip_channels, stacks and layers must be at least 1"),
        ({"stacks": 0}, "must be at least 1"),
        ({"layers": 0}, "must be at least 1"),
        ({"layers": 21}, "layers must be at most 20, which see 1048576 values, got 21"),
        ({"dropout": 1.0}, "dropout must be at least 0"),
        ({"pixels": "levels", "levels": 1}, "levels must be between 2 and 256"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("wavenet", (1, 4, 4), **arguments)
