"""Images and masks on another grid about the same centre.

Shape suffixes: C channels, S spatial axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return each number over its counterpart."""
    return [a / b for a, b in zip(over, under, strict=True)]


def resample(
    image_CS: Tensor, mask_1S: Tensor | None, shape: Sequence[int], steps: Sequence[float]
) -> tuple[Tensor, Tensor | None]:
    """Return both on a grid of `shape` about the same centre, `steps` old voxels apart.

    The image is interpolated linearly, widened where it shrinks so that nothing is skipped; a mask
    takes the nearest voxel.
    """
    for axis, (n, step) in enumerate(zip(shape, steps, strict=True), start=1):
        old = image_CS.shape[axis]
        if n == old and step == 1.0:
            continue
        at = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * step + (old - 1) / 2
        weights = _interpolation(at, old, step)
        image_CS = torch.tensordot(image_CS, weights, dims=([axis], [1])).movedim(-1, axis)
        if mask_1S is not None:
            nearest = torch.floor(at + 0.5).long().clamp(0, old - 1)
            mask_1S = mask_1S.index_select(axis, nearest)
    return image_CS.contiguous(), mask_1S


def _interpolation(at: Tensor, old: int, step: float) -> Tensor:
    """Return weights [new, old] of linear interpolation, a triangle as wide as the larger voxel.

    Positions beyond the outermost voxel's centre take that voxel.
    """
    width = max(1.0, step)
    at = at.clamp(0, old - 1)
    distance = (at[:, None] - torch.arange(old, dtype=torch.float64)).abs()
    weights = (1 - distance / width).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()
