"""Text burned into the pixels of a picture: found by its shape, not read.

Letters are small spots, brighter or darker than what is around them, of one height, that stand on
one line close to each other. Nothing is read: a hospital's machine then needs no OCR, and no name
gets into a log.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LETTERS = 5
"""So many in a line are text. Two ultrasound images with burned-in names have 17 and 19. Of 1,876
radiographs one has 5, a time of day; the others, CT and MR slices have less than 3, and so do
photographs of the retina."""
_STROKE = 9
"""Pixels: a stroke of a letter is thinner."""
_CONTRAST = 0.3
"""Of a letter to what is around it, in the picture's own range."""
_HEIGHTS = (7, 40)
"""Pixels of a letter."""
_WIDEST, _GAP = 1.6, 0.9
"""Of a letter, and between two, in its height."""
_ALIKE = 0.35
"""By what part of the usual height one of a line may differ."""
_MOST_SPOTS = 20_000
"""A picture with more is noise."""
_COARSER = (1, 2, 4)
"""By what factors a picture is also looked at smaller: letters of up to 160 pixels."""


def letters_in(picture_CXY: NDArray[np.floating]) -> int:
    """Return the letters of the longest line of text, along X or Y, in any of the channels.

    picture_CXY: [C, X, Y]. Each channel is looked at, since red or blue text hardly differs from
    what is around it in grey.
    """
    scaled = (_scaled(channel_XY) for channel_XY in picture_CXY)
    lines = (
        _in_line(line)
        for channel_XY in scaled
        for factor in _COARSER
        for side in (1, -1)
        for boxes in _turned(_spots(side * _smaller(channel_XY, factor)))
        for line in _lines(boxes)
    )
    return max(lines, default=0)


def _scaled(channel_XY: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a picture in its own range, without the few pixels that are brighter or darker."""
    low, high = np.percentile(channel_XY, [0.5, 99.9])
    if not high > low:
        # Few pixels that differ at all: they may be the text.
        low, high = channel_XY.min(), channel_XY.max()
    return (channel_XY - low) / (high - low) if high > low else np.zeros_like(channel_XY)


def _smaller(channel_XY: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Return the means of squares of so many pixels; what is left over at the end is dropped."""
    width, height = (side // factor for side in channel_XY.shape)
    cut = channel_XY[: width * factor, : height * factor]
    means: NDArray[np.floating] = cut.reshape(width, factor, height, factor).mean(axis=(1, 3))
    return means


def _turned(boxes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the boxes as they are and turned by quarters: a text may run up or down."""
    left, right, top, bottom = boxes.T
    for turned in (
        (left, right, top, bottom),
        (-bottom, -top, left, right),
        (-right, -left, -bottom, -top),
        (top, bottom, -right, -left),
    ):
        yield _letters(np.stack(turned, axis=1))


def _letters(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the boxes that have the size of a letter."""
    widths, heights = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fits = (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & (widths <= _WIDEST * heights)
    return boxes[fits]


def _spots(scaled_XY: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return left, right, top and bottom of each spot that may be a part of a text, [N, 4]."""
    thin = scaled_XY - ndimage.grey_opening(scaled_XY, size=(_STROKE, _STROKE))
    marked, count = ndimage.label(thin > _CONTRAST, structure=np.ones((3, 3)))
    if not 0 < count <= _MOST_SPOTS:
        return np.zeros((0, 4), np.int64)
    return np.array(
        [(x.start, x.stop, y.start, y.stop) for x, y in ndimage.find_objects(marked)], np.int64
    )


def _lines(boxes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the spots that stand on one line, from left to right."""
    for bottom in np.unique(boxes[:, 3]):
        line = boxes[np.abs(boxes[:, 3] - bottom) <= 1]
        heights = line[:, 3] - line[:, 2]
        usual = np.median(heights)
        line = line[np.abs(heights - usual) <= _ALIKE * usual]
        if len(line) >= LETTERS:
            yield line[np.argsort(line[:, 0], kind="stable")]


def _in_line(line: NDArray[np.int64]) -> int:
    """Return how many follow each other without a gap, at most."""
    widest = _GAP * np.median(line[:, 3] - line[:, 2])
    gaps = line[1:, 0] - line[:-1, 1]
    longest = run = 1
    for close in (gaps >= -1) & (gaps <= widest):
        run = run + 1 if close else 1
        longest = max(longest, run)
    return longest
