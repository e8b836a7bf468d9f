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
"""So many in a line are text. Two ultrasound images with burned-in names have 16; radiographs,
photographs of the retina, CT and MR slices have 2 at most."""
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


def letters_in(picture_XY: NDArray[np.floating]) -> int:
    """Return the letters of the longest line of text; X runs along the line."""
    low, high = np.percentile(picture_XY, [0.5, 99.9])
    if not high > low:
        return 0
    scaled = (picture_XY - low) / (high - low)
    lines = (_in_line(line) for side in (scaled, -scaled) for line in _lines(_spots(side)))
    return max(lines, default=0)


def _spots(scaled_XY: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return left, right, top and bottom of each spot that may be a letter, [N, 4]."""
    thin = scaled_XY - ndimage.grey_opening(scaled_XY, size=(_STROKE, _STROKE))
    marked, count = ndimage.label(thin > _CONTRAST, structure=np.ones((3, 3)))
    if not 0 < count <= _MOST_SPOTS:
        return np.zeros((0, 4), np.int64)
    boxes = np.array(
        [(x.start, x.stop, y.start, y.stop) for x, y in ndimage.find_objects(marked)], np.int64
    )
    widths, heights = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fits = (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & (widths <= _WIDEST * heights)
    return boxes[fits]


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
