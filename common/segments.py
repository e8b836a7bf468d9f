"""Parts of images for training, so that rare classes are seen often and memory stays small.

Kamnitsas et al., Medical Image Analysis 2017, Sec. 2.2: half of the segments around a voxel of a
class, the classes as often as each other. Which part is seen is drawn for each image by itself,
after the image was drawn, so the chance of a patient to be in a step is what it was.
Legend of shapes: B images, C channels, S spatial axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def segments(
    images_BCS: Tensor,
    masks_B1S: Tensor,
    size: Sequence[int],
    of_classes: float,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return one segment of each image and of its mask: [B, C, *size] and [B, 1, *size].

    size: at most that of the images. of_classes: chance that a segment lies around a voxel of one
    of the classes 1, 2, ... that the mask has; otherwise every place is as likely.
    """
    parts = [
        _segment(image, mask, _start(mask[0], size, of_classes, draws), size)
        for image, mask in zip(images_BCS, masks_B1S, strict=True)
    ]
    return torch.stack([image for image, _ in parts]), torch.stack([mask for _, mask in parts])


def _segment(
    image: Tensor, mask: Tensor, start: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    part = (slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))
    return image[part], mask[part]


def _start(
    mask_S: Tensor, size: Sequence[int], of_classes: float, draws: torch.Generator
) -> list[int]:
    room = [whole - n for whole, n in zip(mask_S.shape, size, strict=True)]
    around = float(torch.rand((), generator=draws)) < of_classes
    classes = torch.unique(mask_S)
    classes = classes[classes > 0]
    if not around or not len(classes):
        return [_draw(n + 1, draws) for n in room]
    places = (mask_S == classes[_draw(len(classes), draws)]).nonzero()
    voxel = places[_draw(len(places), draws)].tolist()
    return [min(max(at - n // 2, 0), most) for at, n, most in zip(voxel, size, room, strict=True)]


def _draw(below: int, draws: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=draws))
