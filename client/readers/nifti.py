"""NIfTI volumes, through nibabel."""

import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError, io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from client.readers.picture import (
    SIZES_MM,
    BadFileError,
    Picture,
    check_fits,
    check_voxels,
    short,
    upright,
    whole_numbers,
)

_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
# What nibabel was seen to raise for damaged headers and damaged voxels.
_BROKEN = (
    ImageFileError,
    HeaderDataError,
    OrientationError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    KeyError,
    OverflowError,
)


def read_volume(path: Path, channels: int) -> Picture:
    """Return a volume in RAS+ order; where 3 channels are asked they are equal.

    Raises:
        BadFileError: where the file is not a NIfTI volume of one number a voxel.
    """
    array, affine = _load(path)
    # What is too large becomes infinite, which is told.
    with np.errstate(over="ignore"):
        grey = array.astype(np.float32)
    return upright(np.repeat(grey[None], channels, axis=0), affine)


def read_volume_mask(path: Path) -> Picture:
    """Return a volume of labels in RAS+ order, one channel.

    Raises:
        BadFileError: as read_volume, and where a value is not a whole number.
    """
    array, affine = _load(path)
    return upright(whole_numbers(path, array[None]), affine)


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the voxels as stored, scaled as the header says, and the affine in mm."""
    try:
        image = nib.load(path)
        _check_header(path, image)
        scale = _MM.get(image.header.get_xyzt_units()[0], 1.0)
        affine = np.diag([scale, scale, scale, 1.0]) @ image.affine
        _check_affine(path, affine)
        # Some tools write a volume as a series of one.
        array = np.asarray(nib.funcs.squeeze_image(image).dataobj)
    except BadFileError:
        raise
    except MemoryError as error:
        raise BadFileError(
            path, "is larger than this machine's memory", "cut it into pieces, or add memory"
        ) from error
    except _BROKEN as error:
        raise BadFileError(
            path,
            f"is broken or not a NIfTI file ({short(error)})",
            "export it again from its source, or leave it out",
        ) from error
    return array, affine


def _check_header(path: Path, image: Any) -> None:  # noqa: ANN401 - nibabel is not typed
    shape = tuple(image.shape)
    check_fits(path, math.prod(shape) * image.get_data_dtype().itemsize)
    if 0 in shape:
        raise BadFileError(path, f"is empty (shape {shape})", "export it again, or leave it out")
    check_voxels(path, math.prod(shape))
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        raise BadFileError(
            path,
            f"has {len(shape)} dimensions (shape {shape}), and a volume has 3",
            "save one volume a file, a single slice as (x, y, 1)",
        )
    if image.get_data_dtype().kind not in "iufb":
        raise BadFileError(
            path,
            f"has voxels of type {image.get_data_dtype()}",
            "save it with one real number a voxel",
        )


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    low, high = SIZES_MM
    with np.errstate(all="ignore"):
        sizes = voxel_sizes(affine)
    fits = np.isfinite(affine).all() and ((sizes >= low) & (sizes <= high)).all()
    if not fits or np.isnan(io_orientation(affine)).any():
        raise BadFileError(
            path,
            f"has a voxel size of {tuple(sizes.tolist())} mm",
            "correct its header (qform or sform)",
        )
