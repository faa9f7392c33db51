"""Heat maps: dark on normal images of a known process, light where a defect was pasted, one scale per position."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gdm_core.anomaly import (
    MapScale,
    fit_map_scale,
    light,
    lit_share,
    map_for,
    map_images,
    normalise_map,
    pixel_auroc,
)
from gdm_core.anomaly.map_scale import smoothed
from gdm_core.contract import GenerativeModel


class Chain(GenerativeModel):
    """The known process: each row is a Markov chain that keeps its pixel's value with probability 0.95; border off."""

    def __init__(self) -> None:
        super().__init__((1, 8, 8))
        self.stay = nn.Parameter(torch.tensor(0.95))

    def draw(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        flips = (torch.rand(n, 1, 8, 8, generator=generator) < 0.05).long()
        flips[..., :2] = 0
        x = flips.cumsum(3).remainder(2).float()
        x[:, :, [0, 7]] = 0
        return x

    def log_prob_map(self, x: Tensor) -> Tensor:
        previous = nn.functional.pad(x, (1, 0))[..., :-1]
        off = torch.zeros_like(x, dtype=torch.bool)
        off[:, :, [0, 7]] = True
        off[..., :2] = True
        stays = torch.where(off, 1 - 1e-4, self.stay)
        return torch.where(x == torch.where(off, 0.0, previous), stays, 1 - stays).log()

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_prob_map(x).flatten(1).sum(1)


def paste(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Flip a 2x2 block of each image; the flipped pixels."""
    generator = torch.Generator().manual_seed(seed)
    defects = torch.zeros(len(x), 8, 8, dtype=torch.bool)
    for defect in defects:
        row, column = torch.randint(0, 7, (2,), generator=generator).tolist()
        defect[row : row + 2, column : column + 2] = True
    return torch.where(defects.unsqueeze(1), 1 - x, x), defects


@pytest.mark.parametrize("calibration_count", [20, 99, 150, 400])
def test_at_most_one_percent_of_normal_pixels_are_lit(calibration_count: int) -> None:
    model = Chain()
    shares = []
    for seed in range(6):
        scale = fit_map_scale(map_images(model, model.draw(calibration_count, seed)))
        shares.append(lit_share(normalise_map(map_images(model, model.draw(100, 100 + seed)), scale)))
    assert sum(shares) / len(shares) <= 0.01


def test_each_position_promises_one_percent_by_itself() -> None:
    """Continuous surprise with another scale at every position: the quantile binds where it exceeds the pooled one."""
    spread = torch.linspace(0.1, 10, 64).view(8, 8)
    lit = torch.zeros(8, 8)
    for _ in range(60):
        maps = torch.randn(299, 8, 8).abs() * spread
        lit += (light(normalise_map(maps[199:], fit_map_scale(maps[:199]))) > 0).float().mean(0) / 60
    assert lit.max() < 0.01 + 5 * (0.01 / 6000) ** 0.5 * 2
    assert lit[-1].mean() > 0.003, "the threshold is far too high"


def test_threshold_is_the_conformal_order_statistic() -> None:
    maps = torch.randn(250, 8, 8, dtype=torch.float64)
    scale = fit_map_scale(maps)
    values = smoothed(maps)
    quantile = values.sort(0, descending=True).values[1]  # floor(0.01 * 251) = 2: the second largest
    pooled = values.flatten().sort(descending=True).values[math.floor(0.01 * (250 * 64 + 1)) - 1]
    assert torch.equal(scale.threshold, torch.maximum(quantile, pooled))
    z = normalise_map(maps, scale)
    assert torch.equal(z > 1, values > scale.threshold)


def test_a_pasted_defect_is_found() -> None:
    model = Chain()
    scale = fit_map_scale(map_images(model, model.draw(200, 0)))
    bad, defects = paste(model.draw(200, 1), seed=2)
    z = normalise_map(map_images(model, bad), scale)
    assert pixel_auroc(z, defects) >= 0.9
    assert lit_share(z) > 0.02


def test_always_off_pixels_stay_dark_for_a_trifle_and_light_up_for_ink() -> None:
    maps = torch.rand(200, 8, 8) + 1
    maps[:, 0] = 1e-6
    scale = fit_map_scale(maps)
    trifle, ink = maps[:1].clone(), maps[:1].clone()
    trifle[:, 0], ink[:, 0, 3] = 2e-6, 9.0
    assert light(normalise_map(trifle, scale))[0, 0].max() == 0
    assert light(normalise_map(ink, scale))[0, 0, 3] > 0


def test_light_is_zero_up_to_the_threshold_and_one_from_twice() -> None:
    z = torch.tensor([[-1.0, 0.0, 1.0, 1.5, 2.0, 9.0, math.inf, math.nan]])
    assert light(z).tolist() == [[0, 0, 0, 0.5, 1, 1, 1, 1]]


def test_smoothing_is_the_binomial_kernel() -> None:
    spike = torch.zeros(1, 5, 5)
    spike[0, 2, 2] = 16
    assert smoothed(spike)[0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert torch.equal(smoothed(torch.ones(2, 1, 3)), torch.ones(2, 1, 3, dtype=torch.float64))


def test_maps_below_zero_have_a_scale() -> None:
    """Densities of real pixels can exceed one: their surprise is negative."""
    maps = torch.randn(200, 4, 4) - 50
    scale = fit_map_scale(maps)
    assert scale.begin < -49 and torch.isfinite(normalise_map(maps, scale)).all()
    assert normalise_map(maps, scale).min() >= 0


def test_constant_maps_have_a_scale() -> None:
    scale = fit_map_scale(torch.zeros(120, 4, 4))
    assert lit_share(normalise_map(torch.zeros(3, 4, 4), scale)) == 0
    assert lit_share(normalise_map(torch.ones(3, 4, 4), scale)) == 1


def test_map_follows_capabilities() -> None:
    class Both(Chain):
        def reconstruct(self, x: Tensor) -> Tensor:
            return x

    class Nothing(GenerativeModel):
        pass

    assert map_for(Both).name == map_for(Chain()).name == "pixel_surprise"
    assert map_for(Nothing) is None
    with pytest.raises(ValueError, match="Nothing has no per-pixel map: it needs one of PixelLikelihood"):
        map_images(Nothing((1, 8, 8)), torch.zeros(1, 1, 8, 8))
    model = Chain()
    x = model.draw(3, 0)
    assert torch.allclose(map_images(model, x).sum((1, 2)), -model.log_prob(x).double())
    assert map_images(model, x[:0]).shape == (0, 8, 8)


def test_reconstruction_error_sums_channels() -> None:
    class Half(GenerativeModel):
        def __init__(self, pixels: str) -> None:
            super().__init__((3, 2, 2), pixels)
            self.grey = nn.Parameter(torch.tensor(0.5))

        def reconstruct(self, x: Tensor) -> Tensor:
            return self.grey.expand_as(x)

    x = torch.ones(1, 3, 2, 2)
    assert torch.allclose(map_images(Half("binary"), x), torch.full((1, 2, 2), 3 * math.log(2)).double())
    assert torch.allclose(map_images(Half("real"), x), torch.full((1, 2, 2), 0.75).double())


def test_bad_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        fit_map_scale(torch.full((3, 2, 2), math.nan))
    with pytest.raises(ValueError, match="needs maps"):
        fit_map_scale(torch.zeros(0, 2, 2))
    with pytest.raises(ValueError, match="above its beginning"):
        MapScale(torch.tensor(1.0), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="scale is for maps of"):
        normalise_map(torch.zeros(1, 3, 3), MapScale(torch.tensor(0.0), torch.ones(2, 2)))
