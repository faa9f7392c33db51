"""The image transformer: its attention, its places, its cache, its dropout, and that it looks anything up."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.autoregressive.image_transformer import Block, ImageTransformer, KeysAndValues
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import GREY_BINARY, Images, all_images, random_model


def by_hand(block: Block, h: torch.Tensor) -> torch.Tensor:
    """A block's formula, one place, one head and one query at a time: (T, features) -> (T, features)."""
    width = h.shape[-1] // block.heads
    queries, keys, values = block.project(block.before_attention(h)).chunk(3, -1)
    seen = torch.zeros_like(h)
    for i, head in itertools.product(range(len(h)), range(block.heads)):
        part = slice(head * width, (head + 1) * width)
        weights = torch.stack([queries[i, part] @ keys[j, part] / math.sqrt(width) for j in range(i + 1)]).softmax(0)
        seen[i, part] = sum(weights[j] * values[j, part] for j in range(i + 1))
    h = h + block.join(seen)
    y = block.widen(block.before_layers(h))
    return h + block.narrow(y * torch.special.ndtr(y))  # GELU: y P(standard normal < y)


@torch.no_grad()
def test_the_network_is_the_formula() -> None:
    model = random_model("image_transformer", (2, 2, 3))
    x = torch.randint(2, (1, 2, 2, 3)).double()
    h = model.before(x)[0].clone()
    for i, (row, column, colour) in enumerate(itertools.product(range(2), range(3), range(2))):
        h[i] += model.row[row, 0, 0] + model.column[column, 0] + model.colour[colour]
    for block in model.blocks:
        h = by_hand(block, h)
    expected = model.output(model.norm(h)).view(2, 3, 2, 1).permute(2, 0, 1, 3)
    torch.testing.assert_close(model.logits(x)[0], expected)


@torch.no_grad()
def test_sampling_computes_each_key_once_and_keeps_it() -> None:
    model, lengths = build_model("image_transformer", (2, 3, 3), features=8, heads=2, blocks=2), []
    for block in model.blocks:
        block.project.register_forward_hook(lambda layer, inputs, output: lengths.append(inputs[0].shape[1]))
    model.sample(4)
    assert lengths == [1] * model.dimensions * 2
    cache = KeysAndValues(model.places(), 2, 4)
    assert cache.keys.shape == cache.values.shape == (4, 2, 18, 4)


def test_dropout_acts_on_the_loss_in_training_and_never_on_the_density() -> None:
    model = random_model("image_transformer", GREY_BINARY).train()
    model.dropout = 0.5
    x = all_images(GREY_BINARY)[::7]
    assert model.loss(Batch(x))["loss"] != model.loss(Batch(x))["loss"]
    assert torch.equal(model.log_prob(x), model.log_prob(x))


def test_no_matrix_of_all_pairs_of_places_is_kept_while_learning() -> None:
    kept = []
    model = ImageTransformer((1, 20, 20), features=8, heads=2, blocks=1, dropout=0.1).train()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        model.loss(Batch(torch.randint(2, (2, 1, 20, 20)).float()))["loss"].backward()
    assert max(kept) < 2 * 400 * 400


def test_the_transformer_looks_up_any_place() -> None:
    """Six bits, then the same in a fixed disorder: the second half costs nothing, whatever the distances."""
    bits, order = torch.randint(2, (256, 6)).float(), torch.tensor([3, 5, 0, 1, 4, 2])
    data = Images(torch.cat([bits, bits[:, order]], 1).view(-1, 1, 3, 4))
    model = ImageTransformer((1, 3, 4), features=24, heads=2, blocks=1, dropout=0.0)
    for _ in train(model, data, TrainingConfig(epochs=15, batch_size=16, learning_rate=1e-2)):
        pass
    with torch.no_grad():
        assert -model.log_prob_map(data.images).flatten(1)[:, 6:].sum(1).mean().item() < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 10, "heads": 4}, "heads divide features, got 10, 3 and 4"),
        ({"blocks": 0}, "must be at least 1"),
        ({"heads": 0}, "must be at least 1"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
        ({"pixels": "levels", "levels": 257}, "levels must be between 2 and 256"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("image_transformer", (1, 4, 4), **arguments)
