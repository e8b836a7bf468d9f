"""Masks and maps as files in the space of the image that they are of."""

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

from client.readers.registry import ending

NIFTI, PNG = ".nii.gz", ".png"
_NIFTI_ENDINGS = (".nii", ".nii.gz")


def ending_for(image: Path) -> str:
    """Return the ending of a mask of this image."""
    return NIFTI if ending(image) in _NIFTI_ENDINGS else PNG


def write_map(image: Path, values_S: NDArray[Any], path: Path) -> None:
    """Write values on the axes of the image's reader as a file in the image's own space.

    A NIfTI has the shape, the affine and the units of the image's; a picture is a PNG of its width
    and height, in which 1.0 is 255.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending(image) in _NIFTI_ENDINGS:
        nib.save(in_space_of(nib.load(image), values_S), path)
        return
    if values_S.dtype.kind == "f":
        values_S = np.rint(values_S * 255).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(values_S.T)).save(path)


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
    header["aux_file"] = b""
    return type(image)(stored.reshape(image.shape), image.affine, header)
