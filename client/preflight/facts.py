"""One row of a manifest read whole: what is to be counted of it, or what is wrong with it.

Shape suffixes: C channels, S spatial axes, X Y the first two of them.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.manifest import Row
from client.preflight.burned_in import LETTERS, letters_in
from client.preflight.headers import About, about
from client.readers import BadFileError, Picture, read_image, read_mask
from client.row_images import check_same_grid

IMAGE, LABEL = "image", "label"
_MM3_IN_ML = 1000.0
_CHANNELS, _COLOURS = 1, 3
_LOOKED_AT = 3
"""Slices of a volume in which text is looked for: a name is in all of them, or in the first."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one row's files hold."""

    row: Row
    error: BadFileError | None = None
    """Why the image or its mask cannot be used."""
    failed: str = ""
    """What could not be used: image or label; empty where there is no error."""
    misfit: BadFileError | None = None
    """Why a study cannot use what could be read."""
    about: About = field(default_factory=About)
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    low: float = 0.0
    median: float = 0.0
    high: float = 0.0
    """Of the grey values: the 1st, 50th and 99th hundredth."""
    pixel_hash: str = ""
    """SHA-256 of the grey values and their shape, whatever file they come from."""
    labels: Mapping[int, float] = field(default_factory=dict)
    """By label value, its volume in ml, or its area in mm2 where the image is flat."""
    letters: int = 0
    """Letters of the longest line of text in the pixels; 0 for fewer than a text has."""


def facts_of(row: Row, check: Callable[[Row], object] | None = None) -> Facts:
    """Read one row whole; a file that cannot be used is a fact too.

    check: raises BadFileError for a row that can be read but that a study cannot use;
    None: no study is named.
    """
    known, failed = About(), IMAGE
    try:
        image = read_image(row.image, _CHANNELS)
        known, failed = about(row.image), LABEL
        labels = _labels(row, image)
        known = _with_mask(known, row)
    except BadFileError as error:
        return Facts(row=row, error=error, failed=failed, about=known)
    grey_S = image.array_CS[0]
    low, median, high = (float(value) for value in np.percentile(grey_S, [1, 50, 99]))
    return Facts(
        row=row,
        about=known,
        size=tuple(grey_S.shape),
        spacing_mm=image.spacing_mm,
        low=low,
        median=median,
        high=high,
        pixel_hash=_hash(grey_S),
        labels=labels,
        misfit=_misfit(row, check),
        letters=_letters(row, grey_S),
    )


def _misfit(row: Row, check: Callable[[Row], object] | None) -> BadFileError | None:
    if check is None:
        return None
    try:
        check(row)
    except BadFileError as error:
        return error
    return None


def _with_mask(known: About, row: Row) -> About:
    """Return what is said of an image, with the fields of its mask that may name a patient."""
    if row.mask is None:
        return known
    of_mask = about(row.mask).identifying
    more = tuple(name for name in of_mask if name not in known.identifying)
    return replace(known, identifying=known.identifying + more)


def _labels(row: Row, image: Picture) -> dict[int, float]:
    if row.mask is None:
        return {}
    mask = read_mask(row.mask, image)
    check_same_grid(row.mask, mask, row.image, image)
    values, counts = np.unique(mask.array_CS, return_counts=True)
    voxel = float(np.prod(image.spacing_mm))
    unit = voxel / _MM3_IN_ML if len(image.spacing_mm) == 3 else voxel
    return {int(v): float(n * unit) for v, n in zip(values, counts, strict=True) if v != 0}


def _hash(grey_S: NDArray[np.float32]) -> str:
    return hashlib.sha256(repr(grey_S.shape).encode() + grey_S.tobytes()).hexdigest()


def _letters(row: Row, grey_S: NDArray[np.float32]) -> int:
    if grey_S.ndim == 2:
        # Text in one colour may be as grey as what is around it.
        pictures = [read_image(row.image, _COLOURS).array_CS]
    else:
        axis = int(np.argmin(grey_S.shape))
        slices = np.moveaxis(grey_S, axis, 0)
        chosen = sorted({0, len(slices) // 2, len(slices) - 1})[:_LOOKED_AT]
        pictures = [slices[index][None] for index in chosen]
    letters = max(letters_in(picture_CXY) for picture_CXY in pictures)
    return letters if letters >= LETTERS else 0
