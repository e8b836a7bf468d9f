"""Readers by file ending, and the checks that every file passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.readers.nifti import read_volume, read_volume_mask
from client.readers.picture import BadFileError, Picture
from client.readers.raster import read_picture, read_picture_mask


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read."""

    image: Callable[[Path, int], Picture]
    mask: Callable[[Path], Picture]


_NIFTI = Reader(read_volume, read_volume_mask)
_RASTER = Reader(read_picture, read_picture_mask)

READERS: Mapping[str, Reader] = {
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".png": _RASTER,
    ".jpg": _RASTER,
    ".jpeg": _RASTER,
}
"""Reader of each file ending, in lower case."""


def read_image(path: Path, channels: int) -> Picture:
    """Return an image, float32, with the channels asked (1 grey, 3 colour).

    Raises:
        BadFileError: missing, of an unknown kind, broken, empty (no voxel, or every voxel the
            same), of a wrong dimension, or with values that are not finite.
    """
    picture = _reader(path).image(path, channels)
    array_CS = picture.array_CS
    finite = np.isfinite(array_CS)
    if not finite.any():
        raise BadFileError(path, "is empty (no voxel is a number)", "export it again")
    if not finite.all():
        raise BadFileError(
            path,
            f"has {int((~finite).sum())} values that are not finite (NaN or infinite)",
            "replace them in the source, or leave the file out",
        )
    if array_CS.min() == array_CS.max():
        raise BadFileError(
            path, f"is empty (every voxel is {array_CS.flat[0]:g})", "export it again"
        )
    return picture


def read_mask(path: Path) -> Picture:
    """Return a mask, int64, one channel, with the file's own label values.

    Raises:
        BadFileError: missing, of an unknown kind, broken, of a wrong dimension, in colour, or
            with values that are not whole numbers.
    """
    return _reader(path).mask(path)


def ending(path: Path) -> str:
    """Return a file's ending in lower case, `.nii.gz` as one."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return ".nii.gz" if suffixes == [".nii", ".gz"] else "".join(suffixes[-1:])


def stem(path: Path) -> str:
    """Return a file's name without its ending, `.nii.gz` as one."""
    return path.name[: len(path.name) - len(ending(path))]


def _reader(path: Path) -> Reader:
    if not path.is_file():
        raise BadFileError(
            path, "does not exist", "correct its path in the manifest, or restore the file"
        )
    if path.stat().st_size == 0:
        raise BadFileError(path, "is empty (0 bytes)", "export it again from its source")
    reader = READERS.get(ending(path))
    if reader is None:
        raise BadFileError(
            path,
            f"ends in {ending(path) or 'nothing'!r}, which no reader knows",
            f"convert it to one of: {', '.join(READERS)}",
        )
    return reader
