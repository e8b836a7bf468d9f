"""Readers by what a path is, and the checks that every image passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from client.readers.nifti import read_volume, read_volume_mask
from client.readers.picture import BadFileError, Picture
from client.readers.raster import read_picture, read_picture_mask


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read."""

    image: Callable[[Path, int], Picture]
    mask: Callable[[Path, Picture | None], Picture]
    """Takes the image too: contours and segments are drawn on its grid."""


def _dicom_image(path: Path, channels: int) -> Picture:
    check_dicom_installed(path)
    # A site without DICOM does without its libraries.
    from client.readers.dicom import read_dicom

    return read_dicom(path, channels)


def _dicom_mask(path: Path, image: Picture | None) -> Picture:
    check_dicom_installed(path)
    from client.readers.dicom_labels import read_dicom_mask

    return read_dicom_mask(path, image)


def check_dicom_installed(path: Path) -> None:
    """Raise BadFileError where DICOM's libraries are not installed: not every site needs them."""
    if find_spec("highdicom") is None:
        raise BadFileError(
            path, "is DICOM, which is not installed", "pip install 'wardround[clinical]'"
        )


_NIFTI = Reader(read_volume, lambda path, _: read_volume_mask(path))
_RASTER = Reader(read_picture, lambda path, _: read_picture_mask(path))
_DICOM = Reader(_dicom_image, _dicom_mask)

_MARK, _MARK_AT = b"DICM", 128
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Of the tags with which a data set begins, 0002 or 0008."""

READERS: Mapping[str, Reader] = {
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".png": _RASTER,
    ".jpg": _RASTER,
    ".jpeg": _RASTER,
    ".dcm": _DICOM,
}
"""Reader of each file ending, in lower case. A folder is a DICOM series, and so is a DICOMDIR or a
file of any other name that has the mark of DICOM."""


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


def read_mask(path: Path, image: Picture | None = None) -> Picture:
    """Return a mask, int64, one channel, with the file's own label values.

    image: what the mask is of. DICOM-SEG and RTSTRUCT are drawn on its grid, with the numbers of
    the segments or regions as label values; other masks have a grid of their own.

    Raises:
        BadFileError: missing, of an unknown kind, broken, of a wrong dimension, in colour, or
            with values that are not whole numbers.
    """
    return _reader(path).mask(path, image)


def names_of_mask(path: Path) -> Mapping[int, str]:
    """Return the names of a mask's label values where its file tells them, as DICOM does.

    Raises:
        BadFileError: a DICOM file that cannot be read.
    """
    if not (path.is_dir() or is_dicom(path)):
        return {}
    # A site without DICOM does without its libraries.
    from client.readers.dicom_labels import names_of_labels

    return names_of_labels(path)


def ending(path: Path) -> str:
    """Return a file's ending in lower case, `.nii.gz` as one."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return ".nii.gz" if suffixes == [".nii", ".gz"] else "".join(suffixes[-1:])


def stem(path: Path) -> str:
    """Return a file's name without its ending, `.nii.gz` as one."""
    return path.name[: len(path.name) - len(ending(path))]


def _reader(path: Path) -> Reader:
    if path.is_dir():
        return _DICOM
    if not path.is_file():
        raise BadFileError(
            path, "does not exist", "correct its path in the manifest, or restore the file"
        )
    if path.stat().st_size == 0:
        raise BadFileError(path, "is empty (0 bytes)", "export it again from its source")
    reader = READERS.get(ending(path))
    if reader is None and is_dicom(path):
        return _DICOM
    if reader is None:
        raise BadFileError(
            path,
            f"ends in {ending(path) or 'nothing'!r}, which no reader knows",
            f"convert it to one of: {', '.join(READERS)}",
        )
    return reader


def is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM (PS3.10, 7.1), whatever it is called."""
    return _beginning(path)[_MARK_AT:] == _MARK


def is_dicom_without_mark(path: Path) -> bool:
    """Return whether a file may be DICOM of old, a bare data set, by ending or first tag."""
    start = _beginning(path)
    is_named = bool(start) and ending(path) == ".dcm"
    return start[_MARK_AT:] != _MARK and (is_named or start[:2] in _FIRST_GROUPS)


def _beginning(path: Path) -> bytes:
    """Return the first bytes of a file; none of what cannot be read, such as a pipe."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_MARK_AT + len(_MARK))
    except OSError:
        return b""
