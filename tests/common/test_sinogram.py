import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.sinogram import back_projected, detectors_of, projected


def disc(side_x: int, side_y: int, radius: float, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Return a smooth-edged disc about (x, y) from the middle."""
    at_x = torch.arange(side_x) - (side_x - 1) / 2 - x
    at_y = torch.arange(side_y) - (side_y - 1) / 2 - y
    return (radius - torch.hypot(at_x[:, None], at_y[None]) + 0.5).clamp(0, 1)[None]


@given(views=st.integers(1, 9), side_x=st.integers(8, 20), side_y=st.integers(8, 20))
def test_every_view_has_the_mass_of_the_slice(views: int, side_x: int, side_y: int) -> None:
    slices = torch.rand(2, side_x, side_y, generator=torch.Generator().manual_seed(0))
    sinogram = projected(slices, views)
    assert sinogram.shape == (2, views, detectors_of(side_x, side_y))
    # The first view lies on the grid; the others interpolate.
    mass = slices.sum(dim=(1, 2))[:, None].expand(-1, views)
    torch.testing.assert_close(sinogram.sum(dim=2), mass, rtol=0.15, atol=0)


def test_the_projections_of_a_disc_are_its_chords() -> None:
    sinogram = projected(disc(40, 32, 9.0, x=3.0, y=-2.0), 12)
    middle = (sinogram.shape[2] - 1) / 2
    for view in range(12):
        angle = math.pi * view / 12
        t = torch.arange(sinogram.shape[2]) - middle
        t = t - 3.0 * math.cos(angle) + 2.0 * math.sin(angle)
        chords = 2 * (9.0**2 - t.square()).clamp(min=0).sqrt()
        inside = t.abs() < 7
        torch.testing.assert_close(sinogram[0, view][inside], chords[inside], rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
def test_back_projection_of_many_views_gives_the_slice_back(size: tuple[int, int]) -> None:
    slices = torch.cat([disc(*size, 11.0, x=4.0), disc(*size, 7.0, x=-6.0, y=8.0)])
    found = back_projected(projected(slices, 90), *size)
    # An edge rings, as no detector sees finer than its own width.
    core = torch.cat([disc(*size, 7.0, x=4.0), disc(*size, 3.0, x=-6.0, y=8.0)]) == 1
    assert float((found - slices)[core].abs().max()) < 0.05
    assert float((found - slices).square().mean().sqrt()) < 0.1
