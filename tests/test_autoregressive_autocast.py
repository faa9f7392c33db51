"""Autocast is for learning: under it, an autoregressive model draws the very images that it draws without it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.randomness import seeded_generator
from gdm_core.registry import model_class
from tests.autoregressive_cases import BUILDERS
from tests.contract_cases import CASES, halfway

REGISTERED = [label for label, case in CASES.items() if model_class(case.name).family == "autoregressive"]
VARIANTS = ["pixel_rnn row by row", "pixel_rnn row lstm", "made", "eonade", "multiscale_pixel_rnn 3 scales"]


def case_of(label: str) -> tuple[GenerativeModel, Tensor]:
    """A model in float32 whose pixels depend on each other markedly, and three images for it."""
    if label in CASES:
        model, x = CASES[label].build(), CASES[label].images(3)
    else:
        model, x = BUILDERS[label]((2, 3, 4), 2), torch.rand(3, 2, 3, 4, generator=seeded_generator(1)).round()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3).mul_(1.5)
    return model.eval(), x


def everything_drawn(model: GenerativeModel, x: Tensor) -> dict[str, Tensor]:
    """By every method that draws; a completion is exact for one of the masks, and approximate for the other."""
    first = halfway(model)
    drawn = {
        "sample": model.sample(3, generator=seeded_generator(0)),
        "sample_steps": torch.stack(list(model.sample_steps(3, generator=seeded_generator(0)))),
    }
    for where, known in (("first", first), ("last", 1 - first)):
        drawn[f"complete {where}"] = model.complete(x, known, generator=seeded_generator(0))
        steps = list(model.complete_steps(x, known, generator=seeded_generator(0)))
        drawn[f"complete_steps {where}"] = torch.stack(steps)
    return drawn


@pytest.mark.parametrize("label", [*REGISTERED, *VARIANTS])
def test_half_precision_autocast_changes_nothing_that_is_drawn(label: str) -> None:
    model, x = case_of(label)
    expected = everything_drawn(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = everything_drawn(model, x)
    assert found.keys() == expected.keys()
    for how, images in expected.items():
        assert found[how].dtype == torch.float32 and torch.equal(found[how], images), how


@pytest.mark.parametrize("name", ["pixel_cnn", "made", "multiscale_pixel_rnn"])
def test_between_two_steps_autocast_is_the_callers(name: str) -> None:
    """Also where it begins or ends while the images form."""
    model, x = case_of(f"{name}-binary-5x4-colour")
    for steps in (model.sample_steps(2), model.complete_steps(x, halfway(model))):
        for wanted in (False, True, True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=wanted):
                next(steps)
                assert torch.is_autocast_enabled("cpu") == wanted
            assert not torch.is_autocast_enabled("cpu")
