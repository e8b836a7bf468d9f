"""NIfTI volumes, through nibabel."""

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

from client.readers.picture import BadFileError, Picture, short, upright, whole_numbers

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
    return upright(np.repeat(array[None].astype(np.float32), channels, axis=0), affine)


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
        # Some tools write a volume as a series of one.
        volume = nib.funcs.squeeze_image(image)
        array = np.asarray(volume.dataobj)
        scale = _MM.get(volume.header.get_xyzt_units()[0], 1.0)
    except BadFileError:
        raise
    except _BROKEN as error:
        raise BadFileError(
            path,
            f"is broken or not a NIfTI file ({short(error)})",
            "export it again from its source, or leave it out",
        ) from error
    return array, np.diag([scale, scale, scale, 1.0]) @ volume.affine


def _check_header(path: Path, image: Any) -> None:  # noqa: ANN401 - nibabel is not typed
    shape = tuple(image.shape)
    if 0 in shape:
        raise BadFileError(path, f"is empty (shape {shape})", "export it again, or leave it out")
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
    sizes = voxel_sizes(image.affine)
    placed = np.isfinite(image.affine).all() and (sizes > 0).all()
    if not placed or np.isnan(io_orientation(image.affine)).any():
        raise BadFileError(
            path,
            f"has a voxel size of {tuple(sizes.tolist())} mm",
            "correct its header (qform or sform)",
        )
