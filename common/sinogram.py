"""Parallel-beam computed tomography of a slice: projections, and filtered back-projection.

Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, Ch. 3, with one detector a
voxel and views over half a turn. Coordinates are in voxels from the middle of the image.
Legend of shapes: N slices, X Y their axes, A views, D detectors.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def detectors_of(side_x: int, side_y: int) -> int:
    """Return how many detectors see the whole slice in every view: its diagonal."""
    return math.ceil(math.hypot(side_x, side_y))


def projected(slices_NXY: Tensor, views: int) -> Tensor:
    """Return line integrals, [N, A, D]: over s of the slice at t cos - s sin, t sin + s cos.

    Voxels are interpolated linearly; outside the slice is 0.
    """
    side_x, side_y = slices_NXY.shape[1:]
    middle = (detectors_of(side_x, side_y) - 1) / 2
    at = torch.arange(-middle, middle + 0.5, dtype=slices_NXY.dtype)
    t_D1, s_1D = at[:, None], at[None]
    sinogram = []
    for angle in _angles(views):
        x = t_D1 * math.cos(angle) - s_1D * math.sin(angle)
        y = t_D1 * math.sin(angle) + s_1D * math.cos(angle)
        # From voxels of the middle to -1 and 1 at the outer edges; the last axis comes first.
        places = torch.stack([2 * y / side_y, 2 * x / side_x], dim=-1)
        seen = F.grid_sample(
            slices_NXY[:, None],
            places.expand(len(slices_NXY), -1, -1, -1).to(slices_NXY.device),
            align_corners=False,
        )
        sinogram.append(seen[:, 0].sum(dim=2))
    return torch.stack(sinogram, dim=1)


def back_projected(sinogram_NAD: Tensor, side_x: int, side_y: int) -> Tensor:
    """Return the slices, [N, X, Y], by filtered back-projection with the ramp of Eq. 61."""
    views, detectors = sinogram_NAD.shape[1:]
    filtered = _ramp_filtered(sinogram_NAD)
    x = torch.arange(side_x, dtype=torch.float64)[:, None] - (side_x - 1) / 2
    y = torch.arange(side_y, dtype=torch.float64)[None] - (side_y - 1) / 2
    slices = torch.zeros(len(sinogram_NAD), side_x, side_y, dtype=filtered.dtype)
    for number, angle in enumerate(_angles(views)):
        place = x * math.cos(angle) + y * math.sin(angle) + (detectors - 1) / 2
        left = place.floor().long().clamp(0, detectors - 2)
        share = (place - left).to(filtered.dtype)
        view = filtered[:, number]
        slices += (1 - share) * view[:, left] + share * view[:, left + 1]
    return slices * math.pi / views


def _angles(views: int) -> list[float]:
    return [math.pi * number / views for number in range(views)]


def _ramp_filtered(sinogram_NAD: Tensor) -> Tensor:
    detectors = sinogram_NAD.shape[2]
    # Twice as long, so that the two ends of a view do not meet.
    length = 2 ** math.ceil(math.log2(2 * detectors))
    number = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64).round()
    odd = number.long() % 2 == 1
    ramp = torch.where(odd, -1 / (math.pi * torch.where(odd, number, 1.0)) ** 2, 0.0)
    ramp[0] = 0.25
    spectrum = torch.fft.rfft(sinogram_NAD.double(), length) * torch.fft.rfft(ramp)
    filtered: Tensor = torch.fft.irfft(spectrum, length)[..., :detectors]
    return filtered.to(sinogram_NAD.dtype)
