"""What every reader returns, and the one error that every bad file becomes.

Shape suffix: C channels, S the 2 or 3 spatial axes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray


class BadFileError(ValueError):
    """A file that cannot be used: which one, why, and what to do about it."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path} {reason}; {remedy}")
        self.path = path
        self.reason = reason
        self.remedy = remedy


SIZES_MM = (1e-5, 1e5)
"""Voxel sizes that are one: from ten nanometres to a hundred metres."""
MOST_VOXELS = 2**29
"""More are not decoded, all channels and slices together: 4 GiB as they are scaled. A damaged
header easily asks for them."""
_MOST_LABEL = 2.0**53
"""Above it a decimal is always whole, and says nothing."""
_MOST_OF_A_BYTE = 1032
_ALLOWANCE = 64
"""Bytes that a file of nearly nothing may be short of."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The content of one image file or one mask file.

    The first spatial axis is left-right in every kind of file. A volume's axes run to the
    patient's right, front and head (RAS+, the closest to how it was stored), so its last axis
    counts axial slices. A photograph's axes run rightwards and downwards as it is shown.
    """

    array_CS: NDArray[Any]
    """float32 of an image; int64 of a mask, one channel."""
    spacing_mm: tuple[float, ...]
    """Distance of neighbouring voxels along each spatial axis, in mm. PNG and JPEG do not tell
    one: they count as 1 mm a pixel."""
    affine: NDArray[np.float64] | None = None
    """[4, 4], voxel index to mm in the scanner's frame; None for PNG and JPEG."""
    frame_of_reference: str = ""
    """UID of the frame that the affine is in; empty where the file tells none. Two volumes in one
    frame lie to each other as their affines say, in two frames nobody knows."""


def upright(
    array_CS: NDArray[Any], affine: NDArray[np.float64], frame_of_reference: str = ""
) -> Picture:
    """Return a volume [C, X, Y, Z], stored in any order of its axes, in RAS+ order.

    affine: [4, 4], voxel index to mm in RAS. frame_of_reference: as Picture has it.
    """
    turn = io_orientation(affine)
    turned_SC = apply_orientation(np.moveaxis(array_CS, 0, -1), turn)
    affine = affine @ inv_ornt_aff(turn, array_CS.shape[1:])
    return Picture(
        array_CS=np.ascontiguousarray(np.moveaxis(turned_SC, -1, 0)),
        # To a nanometre: 2.9999999 from a rounded affine is 3, and needs no resampling to 3.
        spacing_mm=tuple(round(float(mm), 6) for mm in voxel_sizes(affine)),
        affine=affine,
        frame_of_reference=frame_of_reference,
    )


def check_voxels(path: Path, voxels: int) -> None:
    """Raise BadFileError where there are none, or more than are decoded."""
    if not 0 < voxels <= MOST_VOXELS:
        raise BadFileError(
            path,
            f"says that it has {voxels} pixels",
            f"correct its header, or cut it into pieces of at most {MOST_VOXELS} pixels",
        )


def check_fits(path: Path, promised: int) -> None:
    """Raise BadFileError where a header promises more bytes than a file of its size can hold.

    Nothing of that size must be allocated: a damaged header easily asks for a terabyte. Deflate
    makes at most 1032 bytes of one (zlib, technical details).
    """
    if promised > _MOST_OF_A_BYTE * (path.stat().st_size + _ALLOWANCE):
        raise BadFileError(
            path,
            f"is cut off, or its header is wrong (it promises {promised:.3g} bytes)",
            "export it again from its source",
        )


def short(error: Exception) -> str:
    """Return the first line of what a library says, for a reason."""
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def whole_numbers(path: Path, array: NDArray[Any]) -> NDArray[np.int64]:
    """Return a mask's values as integers.

    Raises:
        BadFileError: where a value is not finite or not a whole number.
    """
    if array.dtype.kind in "iub" and array.dtype.itemsize < 8:
        return array.astype(np.int64)
    # Files that scale their integers on the way in are a little off.
    rounded: NDArray[np.float64] = np.rint(array)
    with np.errstate(invalid="ignore"):
        wrong = ~((np.abs(array - rounded) < 1e-3) & (np.abs(array) < _MOST_LABEL))
    if wrong.any():
        raise BadFileError(
            path,
            f"holds the value {array[wrong].flat[0]:g} in {int(wrong.sum())} places, "
            "and labels are whole numbers",
            "save the mask with one whole number a class",
        )
    return rounded.astype(np.int64)
