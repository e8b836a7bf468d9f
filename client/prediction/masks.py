"""Masks and maps as files in the space of the image that they are of."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray
from PIL import Image

from client.readers import Picture
from client.readers.registry import ending

NIFTI, PNG, DICOM = ".nii.gz", ".png", ".dcm"
_NIFTI_ENDINGS, _RASTER_ENDINGS = (".nii", ".nii.gz"), (".png", ".jpg", ".jpeg")


def kind_of(image: Path) -> str:
    """Return which kind of file an answer to this image is: NIFTI, PNG or DICOM."""
    if ending(image) in _NIFTI_ENDINGS:
        return NIFTI
    return PNG if ending(image) in _RASTER_ENDINGS else DICOM


def write_map(image: Path, picture: Picture, values_S: NDArray[Any], path: Path) -> Path:
    """Write values on the axes of the image's reader into the image's own space; return the file.

    A NIfTI has the shape, the affine and the units of the image's; of a DICOM volume it lies where
    the volume lies. A picture is a PNG of its width and height, in which 1.0 is 255. path: without
    an ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind_of(image) == NIFTI:
        return _saved(in_space_of(nib.load(image), values_S), path)
    if picture.affine is not None:
        return _saved(nib.Nifti1Image(values_S, picture.affine), path)
    if values_S.dtype.kind == "f":
        values_S = np.rint(values_S * 255).astype(np.uint8)
    target = path.with_name(path.name + PNG)
    with whole(target) as temporary:
        Image.fromarray(np.ascontiguousarray(values_S.T)).save(temporary)
    return target


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Give the name to write a file under, which gets its own when it is there whole."""
    temporary = target.with_name(f".{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _saved(image: Any, path: Path) -> Path:  # noqa: ANN401 - nibabel is not typed
    target = path.with_name(path.name + NIFTI)
    with whole(target) as temporary:
        nib.save(image, temporary)
    return target


def in_space_of(image: Any, values_S: NDArray[Any]) -> Any:  # noqa: ANN401 - nibabel is not typed
    """Return values in RAS+ order as a NIfTI with the axes, shape and affine of the image.

    The header's other fields are the image's too, but for those that speak of its values.
    """
    own = io_orientation(image.affine)
    stored = apply_orientation(values_S, ornt_transform(axcodes2ornt("RAS"), own))
    header = image.header.copy()
    header.set_data_dtype(values_S.dtype)
    header.set_slope_inter(1, 0)
    for name in ("cal_min", "cal_max"):
        header[name] = 0
    header["descrip"] = b"wardround"
    # These may name a patient.
    header.extensions.clear()
    for name in ("aux_file", "db_name", "data_type", "intent_name"):
        if name in header:
            header[name] = b""
    return type(image)(stored.reshape(image.shape), image.affine, header)
