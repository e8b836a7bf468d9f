"""Examples as grey pictures with outlines; the outlines are vectors, so they stay sharp.

Shapes: X runs to the right of the picture, Y downwards.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

_BUDGET_BYTES = 200_000
"""Largest size of all pixels together, as bytes before base64."""
_SIDES = (32, 256)
"""A picture is never made smaller or larger than this, in pixels of its longer side."""
_SCALE = 10
"""Outline coordinates are whole tenths of a pixel."""


@dataclass(frozen=True)
class Example:
    """One image that may be shown, with what is drawn on it."""

    site: str
    caption: str
    image_XY: NDArray[Any]
    """Grey values of any range; the first axis is shown to the right, the second downwards."""
    truth_XY: NDArray[Any] | None
    """Integer labels, 0 is background; None for classification, whose caption says the classes."""
    prediction_XY: NDArray[Any] | None
    """As truth_XY."""


@dataclass(frozen=True)
class Picture:
    """What the template draws of an example."""

    site: str
    caption: str
    width: int
    """Of the picture, in the outlines' unit."""
    height: int
    pixels: str
    """A PNG as base64."""
    truth: str
    """Path of the outline, empty without one."""
    prediction: str


def draw(examples: Sequence[Example]) -> list[Picture]:
    """Return the examples small enough that all of them together stay under 300 kB of pixels.

    Raises:
        ValueError: an image is not two-dimensional, or a mask has another shape.
    """
    side = math.isqrt(_BUDGET_BYTES // max(len(examples), 1))
    return [_picture(example, int(np.clip(side, *_SIDES))) for example in examples]


def _picture(example: Example, side: int) -> Picture:
    if example.image_XY.ndim != 2:
        raise ValueError(
            f"example {example.caption!r} of {example.site} has shape {example.image_XY.shape}; "
            "give one slice of it, with two axes"
        )
    width, height = example.image_XY.shape
    shrink = min(1.0, side / max(width, height))
    shown = Image.fromarray(_grey(example.image_XY).T)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        shown = shown.resize(size, Image.Resampling.BOX)
    file = io.BytesIO()
    shown.save(file, format="png", optimize=True)
    return Picture(
        site=example.site,
        caption=example.caption,
        width=shown.width * _SCALE,
        height=shown.height * _SCALE,
        pixels=base64.b64encode(file.getvalue()).decode(),
        truth=_outline(example, example.truth_XY, shown.size),
        prediction=_outline(example, example.prediction_XY, shown.size),
    )


def _grey(image_XY: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the values as bytes, black at the 0.5 % and white at the 99.5 % quantile."""
    finite = np.nan_to_num(image_XY.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = np.percentile(finite, (0.5, 99.5))
    if high <= low:
        return np.full(finite.shape, 128, np.uint8)
    grey: NDArray[np.uint8] = np.rint(np.clip((finite - low) / (high - low), 0, 1) * 255).astype(
        np.uint8
    )
    return grey


def _outline(example: Example, mask_XY: NDArray[Any] | None, size: tuple[int, int]) -> str:
    """Return the border of every label as an SVG path.

    A region so thin that no pixel of a shrunk picture is half covered has none.
    """
    if mask_XY is None:
        return ""
    if mask_XY.shape != example.image_XY.shape:
        raise ValueError(
            f"example {example.caption!r} of {example.site} has a mask of shape {mask_XY.shape} "
            f"on an image of shape {example.image_XY.shape}; give masks of the image's shape"
        )
    axes = Figure().subplots()
    path: list[str] = []
    for label in np.unique(mask_XY[mask_XY != 0]):
        region = Image.fromarray(((mask_XY == label).T * np.uint8(255)).astype(np.uint8))
        covered_YX = np.asarray(region.resize(size, Image.Resampling.BOX), np.float64) / 255
        if covered_YX.max() <= 0.5:
            continue
        # A rim of background closes the border of a region that touches the picture's edge.
        lines = axes.contour(np.pad(covered_YX, 1), levels=[0.5]).get_paths()
        pieces = [piece for line in lines for piece in line.to_polygons(closed_only=False)]
        path += [_segment(np.asarray(piece)) for piece in pieces]
    return "".join(path)


def _segment(points: NDArray[Any]) -> str:
    # The rim shifts by one pixel, and a pixel's centre lies half a pixel from its corner.
    whole = np.rint((points - 0.5) * _SCALE).astype(int)
    start, steps = whole[0], np.diff(whole, axis=0)
    moves = "".join(f"l{x} {y}" for x, y in steps if x or y)
    return f"M{start[0]} {start[1]}{moves}"
