"""What labels must have in common with their image: the frame of reference, one label a voxel."""

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from client.readers.picture import BadFileError, Picture


def affine_of(path: Path, image: Picture, frames: Iterable[str]) -> NDArray[np.float64]:
    """Return the affine of the image that labels are to be drawn on.

    frames: UIDs of the frames of reference that the labels are in; empty ones are not known.

    Raises:
        BadFileError: the image lies in no patient, or in another frame of reference.
    """
    if image.affine is None:
        raise BadFileError(
            path, "lies in a patient, and its image does not", "name the image it was drawn on"
        )
    if image.frame_of_reference and {*frames} - {"", image.frame_of_reference}:
        raise BadFileError(
            path,
            "has another frame of reference than its image, so nobody knows how they lie",
            "name the image it was drawn on, or register the two and export them together",
        )
    return image.affine


def overlap(path: Path) -> NoReturn:
    """Raise BadFileError: a voxel has two labels."""
    raise BadFileError(
        path,
        "has labels that overlap, and a voxel has one label",
        "take the labels apart that overlap, and name the ones that the study needs",
    )
