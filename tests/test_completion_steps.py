"""Laws of completions as they form: after k pixels one sees the known pixels, the first k drawn ones, nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gdm_core.layers.raster_model import PARTICLES, RasterModel
from gdm_core.layers.raster_sampling import as_they_grew
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import EXACT_FOR_ANY_MASK, IN_RASTER_ORDER, random_model

SHAPE = (2, 3, 4)
MASKS = {"a prefix": torch.arange(12) < 5, "every third": torch.arange(12) % 3 == 0, "the end": torch.arange(12) > 7}


def seen_after(k: int, known: Tensor, given: Tensor, drawn: Tensor) -> Tensor:
    """What a viewer may see after k pixels in raster order, value by value: given (N, C, H, W) where `known`."""
    picture = torch.zeros_like(drawn)
    n, colours, height, width = drawn.shape
    for i, row, column, colour in itertools.product(range(n), range(height), range(width), range(colours)):
        if known[i, 0, row, column]:
            picture[i, colour, row, column] = given[i, colour, row, column]
        elif row * width + column < k:
            picture[i, colour, row, column] = drawn[i, colour, row, column]
    return picture


def test_finished_images_are_shown_as_they_grew() -> None:
    images = 0.1 + torch.rand(3, *SHAPE)  # no value that could be taken for one to come
    known = torch.rand(3, 1, *SHAPE[1:]) < 0.4  # another mask for each image
    before = images.clone(), known.clone()
    steps = list(as_they_grew(images, known))
    assert len(steps) == 12
    for k, step in enumerate(steps, 1):
        assert torch.equal(step, seen_after(k, known, images, images))
    assert torch.equal(images, before[0]) and torch.equal(known, before[1])


@torch.no_grad()
def plain_candidates(model: RasterModel, x: Tensor, known: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Completions by the whole network on the whole image for every value, and log p of the known values (n,)."""
    images, log_weight = torch.zeros_like(uniforms), torch.zeros(len(uniforms), dtype=uniforms.dtype)
    for row, column, colour in itertools.product(range(SHAPE[1]), range(SHAPE[2]), range(SHAPE[0])):
        place, here = (slice(None), colour, row, column), known[:, 0, row, column]
        logits = model.logits(images)[place]
        log_weight += torch.where(here, model.distribution.log_prob(logits, x[place]), 0)
        images[place] = torch.where(here, x[place], model.distribution.sample(logits, uniforms[place], 1.0))
    return images, log_weight


def plain_completion(model: RasterModel, x: Tensor, known: Tensor, exact: bool) -> Tensor:
    """What `complete` draws, without a step of its own code: one candidate, or the chosen one of many."""
    generator, count = seeded_generator(2), 1 if exact else PARTICLES
    uniforms = draw_uniforms(model, len(x) * count, None, 1.0, generator)
    drawn, log_weight = plain_candidates(
        model, x.repeat_interleave(count, 0), known.repeat_interleave(count, 0), uniforms
    )
    if exact:
        return drawn
    levels = draw_uniforms(model, len(x), None, 1.0, generator)[:, 0, 0, 0]
    chosen = []
    for i, weights in enumerate(log_weight.view(len(x), count).softmax(1).tolist()):
        total, candidate = 0.0, 0
        while candidate < count - 1 and levels[i] >= (total := total + weights[candidate]):
            candidate += 1
        chosen.append(drawn[i * count + candidate])
    return torch.stack(chosen)


@pytest.mark.parametrize("where", MASKS)
@pytest.mark.parametrize("name", [name for name in IN_RASTER_ORDER if name not in EXACT_FOR_ANY_MASK])
def test_completions_grow_pixel_by_pixel(name: str, where: str) -> None:
    """Each step is what a plain computation has drawn by then: no known pixel is shown wrongly, none to come at all."""
    model, x = random_model(name, SHAPE), torch.randint(2, (3, *SHAPE)).double()
    known = MASKS[where].view(1, 1, *SHAPE[1:]).expand(3, -1, -1, -1)
    exact = model.completion_is_exact(known)
    assert exact == (where == "a prefix")
    unseen = torch.where(known, x, 1 - x)  # what stands where nothing is known plays no part
    steps = list(model.complete_steps(unseen, known[:1], generator=seeded_generator(2)))
    drawn = plain_completion(model, x, known, exact)
    assert len(steps) == 12 and not torch.equal(drawn, x)
    for k, step in enumerate(steps, 1):
        assert torch.equal(step, seen_after(k, known, x, drawn))


@pytest.mark.parametrize("where", MASKS)
@pytest.mark.parametrize("name", sorted(EXACT_FOR_ANY_MASK))
def test_completions_of_any_mask_grow_to_what_they_become(name: str, where: str) -> None:
    model, x = random_model(name, SHAPE), torch.randint(2, (3, *SHAPE)).double()
    known = MASKS[where].view(1, 1, *SHAPE[1:])
    drawn = model.complete(x, known, generator=seeded_generator(2))
    steps = list(model.complete_steps(x, known, generator=seeded_generator(2)))
    assert len(steps) == 12
    for k, step in enumerate(steps, 1):
        assert torch.equal(step, seen_after(k, known.expand(3, -1, -1, -1), x, drawn))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", ["pixel_cnn", "multiscale_pixel_rnn", "eonade", "conditional_gated_pixel_cnn"])
def test_masks_of_any_strides_complete_as_the_plain_one(name: str, n: int) -> None:
    """A mask may be transposed, expanded, or a window of a larger one."""
    plain = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    plain[0, 0, 1, 1] = plain[0, 0, 2, 3] = True
    larger = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    larger[..., 1:4, 1:5] = plain
    masks = {
        "transposed": plain.mT.contiguous().mT,
        "expanded": plain.expand(n, -1, -1, -1),
        "transposed and expanded": plain.mT.contiguous().mT.expand(n, -1, -1, -1),
        "a window": larger[..., 1:4, 1:5],
    }
    model = build_model(name, (1, 3, 4)).eval()
    x = torch.randint(2, (n, 1, 3, 4), generator=seeded_generator(1)).float()
    completed = model.complete(x, plain, generator=seeded_generator(2))
    expected = torch.stack(list(model.complete_steps(x, plain, generator=seeded_generator(2))))
    assert torch.equal(expected[-1], completed) and torch.equal(completed[plain.expand_as(x)], x[plain.expand_as(x)])
    for where, mask in masks.items():
        steps = torch.stack(list(model.complete_steps(x, mask, generator=seeded_generator(2))))
        assert torch.equal(steps, expected), where
        assert torch.equal(model.complete(x, mask, generator=seeded_generator(2)), completed), where


@pytest.mark.parametrize("name", IN_RASTER_ORDER)
def test_steps_of_one_image_are_its_own(name: str) -> None:
    """Each step is a tensor by itself: what a caller does to one is seen neither by others nor by the drawing."""
    model = random_model(name, (1, 3, 4))
    expected = [images.clone() for images in model.sample_steps(1, generator=seeded_generator(0))]
    kept = list(model.sample_steps(1, generator=seeded_generator(0)))
    assert len({images.data_ptr() for images in kept}) == len(kept)
    spoilt = []
    for images in model.sample_steps(1, generator=seeded_generator(0)):
        spoilt.append(images.clone())
        images.fill_(7)
    for steps in (kept, spoilt):
        assert all(torch.equal(found, wanted) for found, wanted in zip(steps, expected, strict=True))
    assert torch.equal(expected[0][..., 1:, :], torch.zeros(1, 1, 2, 4, dtype=torch.float64))
