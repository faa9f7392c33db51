"""Ways through a latent space keep what they promise: ends, lengths, constant speed, the prior."""

from __future__ import annotations

import math

import pytest
import torch

from gdm_core.interpolation import linear, positions, spherical, walk

T = positions(9)


def pair(latent: int = 20, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(latent, dtype=dtype), torch.randn(latent, dtype=dtype)


@pytest.mark.parametrize("way", [linear, spherical])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact(way, dtype):
    a, b = pair(dtype=dtype)
    path = way(a, b, T)
    assert path.shape == (9, 20) and path.dtype == dtype
    assert torch.equal(path[0], a) and torch.equal(path[-1], b)


def test_linear_has_equal_strides():
    a, b = pair(dtype=torch.float64)
    strides = linear(a, b, T).diff(dim=0)
    torch.testing.assert_close(strides, ((b - a) / 8).expand(8, -1))


def test_spherical_keeps_the_length_where_linear_does_not():
    a, b = pair(dtype=torch.float64)
    b = b * a.norm() / b.norm()
    torch.testing.assert_close(spherical(a, b, T).norm(dim=1), a.norm().expand(9))
    assert linear(a, b, T)[4].norm() < 0.9 * a.norm()


def test_spherical_turns_at_constant_speed():
    a, b = pair(dtype=torch.float64)
    a, b = a / a.norm(), b / b.norm()
    path = spherical(a, b, T)
    whole = math.acos(float(a @ b))
    angles = (path[:-1] * path[1:]).sum(1).acos()
    torch.testing.assert_close(angles, torch.full((8,), whole / 8, dtype=torch.float64))


def test_spherical_stays_in_the_plane_of_its_ends():
    a, b = pair(5, torch.float64)
    assert torch.linalg.matrix_rank(torch.cat([torch.stack([a, b]), spherical(a, b, T)])) == 2


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, 0.0])
def test_codes_that_span_no_plane_go_straight(factor):
    a, _ = pair()
    path = spherical(a, factor * a, T)
    assert torch.equal(path, linear(a, factor * a, T)) and path.isfinite().all()


def test_nearly_parallel_codes_stay_finite_and_near():
    a, b = pair(dtype=torch.float64)
    torch.testing.assert_close(spherical(a, a + 1e-5 * b, T), linear(a, a + 1e-5 * b, T), rtol=0, atol=1e-9)


def test_walk_is_closed_smooth_and_repeats():
    codes = torch.randn(6, 20, dtype=torch.float64)
    path = walk(codes, 120)
    around = torch.cat([path, path[:1]])
    strides = around.diff(dim=0).norm(dim=1)
    assert strides.max() < 2 * math.pi / 120 * 3 * path.norm(dim=1).max() * 2  # |z'| <= J times the size of z, roughly
    turns = torch.cat([path[-1:], path, path[:1]]).diff(dim=0).diff(dim=0).norm(dim=1)
    assert turns.max() < 0.2 * strides.max()  # no corners: the closing one included
    assert torch.equal(path, walk(codes, 120))


def test_every_frame_of_a_walk_is_a_draw_from_the_prior():
    codes = torch.randn(6, 200_000, dtype=torch.float64)  # many independent coordinates
    frames = walk(codes, 7)
    torch.testing.assert_close(frames.mean(1), torch.zeros(7, dtype=torch.float64), rtol=0, atol=0.01)
    torch.testing.assert_close(frames.var(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=0.02)


def test_what_cannot_be_walked_is_named():
    a, b = pair()
    with pytest.raises(ValueError, match="codes of one length"):
        linear(a, b[:3], T)
    with pytest.raises(ValueError, match="shape"):
        spherical(a, b, T.view(3, 3))
    with pytest.raises(ValueError, match="even number"):
        walk(torch.randn(3, 4), 5)
    with pytest.raises(ValueError, match="at least 1 frame"):
        walk(torch.randn(2, 4), 0)
    with pytest.raises(ValueError, match="2 ends"):
        positions(1)
