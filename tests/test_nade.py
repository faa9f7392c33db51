"""NADE's two ways to its hidden units: equal logits, equal gradients, and only one of them fills the memory."""

from __future__ import annotations

import pytest
import torch

from gdm_core import build_model
from gdm_core.layers import shared_hidden_units
from gdm_core.layers.shared_hidden_units import BLOCK, SharedHiddenUnits
from gdm_core.models.autoregressive.nade import FEW, _all_at_once


def arguments(dimensions: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    n, hidden = 5, 11
    sizes = [(n, dimensions), (dimensions, hidden), (dimensions, hidden), (hidden,), (dimensions,)]
    return [torch.randn(size, dtype=dtype).requires_grad_() for size in sizes]


@pytest.mark.parametrize("dimensions", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_both_ways_give_the_same_logits_and_gradients(dimensions: int) -> None:
    given = arguments(dimensions)
    logits, plain = SharedHiddenUnits.apply(*given), _all_at_once(*given)
    torch.testing.assert_close(logits, plain)
    weights = torch.randn_like(plain)
    for found, expected in zip(
        torch.autograd.grad((logits * weights).sum(), given), torch.autograd.grad((plain * weights).sum(), given),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_sums_by_parts_of_the_batch_are_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads: each running sum goes two images at a time, the last part being smaller."""
    given = arguments(BLOCK + 3)
    whole = SharedHiddenUnits.apply(*given)
    expected = torch.autograd.grad(whole.square().sum(), given)
    monkeypatch.setattr(shared_hidden_units, "ONE_THREAD", 2 * 11)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    parts = SharedHiddenUnits.apply(*given)
    found = torch.autograd.grad(parts.square().sum(), given)
    torch.testing.assert_close(parts, whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_is_that_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(SharedHiddenUnits.apply, arguments(BLOCK + 2), fast_mode=True)


def test_in_float32_gradients_agree_to_1e5() -> None:
    given = arguments(100, torch.float32)
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    found = torch.autograd.grad(SharedHiddenUnits.apply(*given).square().mean(), given)
    expected = torch.autograd.grad(_all_at_once(*exact).square().mean(), exact)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_what_the_backward_pass_keeps_grows_with_blocks_not_dimensions() -> None:
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    model = build_model("nade", (1, 20, 20), hidden_units=50)
    x = (torch.rand(16, 1, 20, 20) < 0.5).float()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.log_prob(x).sum().backward()
    assert kept < 16 * 400 * 50 / 4  # a quarter of the hidden units alone


def test_samples_of_a_long_nade_score_as_they_were_drawn() -> None:
    """The incremental way of sampling and the blocked way of scoring see the same conditionals."""
    model = build_model("nade", (1, 9, 9), hidden_units=7).double()
    assert model.dimensions > FEW
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        x = model.sample(50, generator=torch.Generator().manual_seed(0))
        whole = model.log_prob(x)
        again = model.sample(50, generator=torch.Generator().manual_seed(0))
        v = x.flatten(1)
        plain = _all_at_once(v, model.weight, model.output_weight, model.hidden_bias, model.visible_bias)
    assert torch.equal(x, again)
    expected = torch.nn.functional.logsigmoid((2 * v - 1) * plain).sum(1)
    torch.testing.assert_close(whole, expected)


def test_half_precision_autocast_leaves_the_long_sum_in_float32() -> None:
    model = build_model("nade", (1, 10, 10), hidden_units=9)
    x = (torch.rand(6, 1, 10, 10) < 0.5).float()
    whole = torch.autograd.grad(model.logits(x).square().sum(), list(model.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = torch.autograd.grad(model.logits(x).square().sum(), list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(whole, half, strict=True))
