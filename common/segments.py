"""Parts of images for training, so that rare classes are seen often and memory stays small.

Kamnitsas et al., Medical Image Analysis 2017, Sec. 2.2: half of the segments around a voxel of a
class, the classes as often as each other. Which part is seen is drawn for each image by itself,
after the image was drawn, so the chance of a patient to be in a step is what it was.
Legend of shapes: B images, C channels, S spatial axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.study import Study


@dataclass(frozen=True)
class Around:
    """What a network needs beside a segment, so that it answers as for the whole image."""

    margin: int = 0
    """Voxels on each side that are seen too."""
    grid: int = 1
    """Segments begin at multiples of so many voxels."""


ALONE = Around()
"""A segment and nothing else."""


def segments(
    images_BCS: Tensor,
    masks_B1S: Tensor,
    size: Sequence[int],
    of_classes: float,
    draws: torch.Generator,
    around: Around = ALONE,
) -> tuple[Tensor, Tensor]:
    """Return one segment of each image and of its mask: [B, C, *seen] and [B, 1, *size].

    size: at most that of the images; seen: with the margin on each side. of_classes: chance that a
    segment lies around a voxel of one of the classes 1, 2, ... that the mask has; otherwise every
    place is as likely.
    """
    starts = [_start(mask[0], size, of_classes, draws, around.grid) for mask in masks_B1S]
    images = [part(i, s, size, around) for i, s in zip(images_BCS, starts, strict=True)]
    masks = [part(m, s, size, ALONE) for m, s in zip(masks_B1S, starts, strict=True)]
    return torch.stack(images), torch.stack(masks)


def part(image_CS: Tensor, start: Sequence[int], size: Sequence[int], around: Around) -> Tensor:
    """Return the part [C, *seen] of an image at `start`, with its margin; beyond the image is 0."""
    margin = around.margin
    spans, outside = [], []
    for begin, length, whole in zip(start, size, image_CS.shape[1:], strict=True):
        first, end = begin - margin, begin + length + margin
        spans.append(slice(max(first, 0), min(end, whole)))
        outside.append((max(-first, 0), max(end - whole, 0)))
    inside = image_CS[(slice(None), *spans)]
    return F.pad(inside, [n for sides in reversed(outside) for n in sides])


def seen_size(study: Study) -> list[int]:
    """Return the size of what a training step sees of an image."""
    if study.data.segment is None:
        return list(study.data.size)
    return [n + 2 * study.model.margin for n in study.data.segment]


def _start(
    mask_S: Tensor, size: Sequence[int], of_classes: float, draws: torch.Generator, grid: int
) -> list[int]:
    room = [whole - n for whole, n in zip(mask_S.shape, size, strict=True)]
    around = float(torch.rand((), generator=draws)) < of_classes
    classes = torch.unique(mask_S)
    classes = classes[classes > 0]
    if not around or not len(classes):
        return [grid * _draw(n // grid + 1, draws) for n in room]
    places = (mask_S == classes[_draw(len(classes), draws)]).nonzero()
    voxel = places[_draw(len(places), draws)].tolist()
    return [
        min(max((at - n // 2 + grid // 2) // grid, 0), most // grid) * grid
        for at, n, most in zip(voxel, size, room, strict=True)
    ]


def _draw(below: int, draws: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=draws))
