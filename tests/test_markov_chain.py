"""The Markov chain: counted against plain Python, short of memory, and resumed with its counts."""

from __future__ import annotations

import collections

import pytest
import torch

from gdm_core import build_model
from gdm_core.contract import TrainingConfig
from gdm_core.registry import model_class
from gdm_core.training import train
from tests.autoregressive_cases import Images, all_images

SHAPE, CONFIG = (2, 3, 3), TrainingConfig(epochs=5, batch_size=7)


def chain(levels: int = 3, **arguments):
    pixels = {"pixels": "binary"} if levels == 2 else {"pixels": "levels", "levels": levels}
    return build_model("markov_chain", SHAPE, **pixels, **arguments).double()


def some_images(levels: int) -> torch.Tensor:
    return torch.randint(levels, (50, *SHAPE)).double() / (levels - 1)


@pytest.mark.parametrize("per_position", [True, False])
@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_conditionals_are_the_smoothed_shares(order, levels, per_position):
    """Oracle: a dictionary from (place, colour, the values before) to how often each value followed."""
    images, smoothing = some_images(levels), 0.3
    model = chain(levels, order=order, per_position=per_position, smoothing=smoothing)
    steps = list(train(model, Images(images), CONFIG))
    assert len(steps) == 8  # one pass, however many epochs are asked for
    counts, keys, sequences = collections.Counter(), {}, (images * (levels - 1)).long().permute(0, 2, 3, 1).flatten(1)
    for n, sequence in enumerate(sequences.tolist()):
        for i, value in enumerate(sequence):
            before = tuple(([0] * order + sequence)[i : i + order])
            keys[n, i] = (i // 2 if per_position else 0, i % 2, before)
            counts[keys[n, i], value] += 1
    for n in (0, 17, 49):
        expected = []
        for i, value in enumerate(sequences[n].tolist()):
            total = sum(counts[keys[n, i], v] for v in range(levels))
            expected.append((counts[keys[n, i], value] + smoothing) / (total + smoothing * levels))
        found = model.log_prob_map(images[n : n + 1]).flatten().exp()  # two colours a place
        torch.testing.assert_close(found, torch.tensor(expected).double().view(-1, 2).prod(1))


def test_a_value_depends_on_the_order_values_before_it_and_no_others():
    model = chain(order=2)
    with torch.no_grad():
        model.logit.normal_()
        x = some_images(3)
        logits = model.logits(x).permute(0, 2, 3, 1, 4).flatten(1, 3)  # (N, D, levels)
        for d in range(18):
            changed = x.permute(0, 2, 3, 1).flatten(1).clone()
            changed[:, d] = (changed[:, d] + 0.5) % 1.5
            changed = changed.view(50, 3, 3, 2).permute(0, 3, 1, 2)
            after = model.logits(changed).permute(0, 2, 3, 1, 4).flatten(1, 3)
            moved = (after != logits).any(-1).any(0).nonzero().flatten().tolist()
            assert moved == [i for i in (d + 1, d + 2) if i < 18]


def test_an_order_of_all_values_learns_any_distribution():
    """With every predecessor in the context and hardly any smoothing, the chain is the table of all images."""
    images = all_images((1, 2, 3))
    weights = torch.rand(len(images)) * 20
    data = images.repeat_interleave(weights.long() + 1, 0)
    model = build_model("markov_chain", (1, 2, 3), order=5, smoothing=1e-9).double()
    list(train(model, Images(data), CONFIG))
    expected = (weights.long() + 1).double().log() - torch.tensor(len(data)).log()
    torch.testing.assert_close(model.log_prob(images), expected, rtol=0, atol=1e-6)


def test_order_0_is_the_independent_bernoulli():
    images = (torch.rand(40, 1, 3, 3) < 0.3).float()
    markov = build_model("markov_chain", (1, 3, 3), order=0)
    independent = build_model("independent_bernoulli", (1, 3, 3))
    for model in (markov, independent):
        list(train(model, Images(images), CONFIG))
    torch.testing.assert_close(markov.log_prob(images), independent.log_prob(images))


def test_counts_are_resumed():
    images, whole, state = some_images(3), chain(order=2), None
    for progress in train(whole, Images(images), CONFIG):
        if progress.step == 3:
            state = {**progress.state_dict(), "model": {k: v.clone() for k, v in whole.state_dict().items()}}
    resumed = chain(order=2)
    list(train(resumed, Images(images), CONFIG, resume=state))
    assert torch.equal(resumed.logit, whole.logit)


def test_orders_that_need_too_large_a_table_are_refused():
    build = model_class("markov_chain")
    assert build((1, 1, 1), order=24).logit.numel() == 2**24
    assert build((1, 8, 8), order=2, pixels="levels", levels=256, per_position=False).logit.numel() == 2**24
    for shape, arguments, largest in [
        ((1, 1, 1), {"order": 25}, 24),
        ((1, 8, 8), {"order": 10**9}, 18),
        ((1, 8, 8), {"order": -1}, 18),
        ((1, 8, 8), {"order": 4, "pixels": "levels", "levels": 17}, 3),
        ((1, 28, 28), {"order": 1, "pixels": "levels", "levels": 256}, 0),
    ]:
        with pytest.raises(ValueError, match=rf"order must lie in 0\.\.{largest} .* got {arguments['order']}"):
            build(shape, **arguments)
    with pytest.raises(ValueError, match="smoothing must be positive"):
        build((1, 8, 8), smoothing=0.0)
