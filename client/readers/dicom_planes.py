"""Pictures that lie parallel in a patient, put into the order in which they are a volume.

Lengths are in mm in DICOM's frame of reference (LPS: to the patient's left, back and head;
PS3.3, C.7.6.2.1.1), until the affine, which is in the readers' frame (RAS, as nibabel's).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.readers.picture import SIZES_MM, BadFileError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns both conventions into each other."""
_SAME_DIRECTION = 1e-3
"""Largest difference of two direction cosines, which have six decimals in a header."""
_UNEVEN, UNEVEN_MM = 0.05, 0.02
"""By what part of the distance of slices, or by how much, one may differ from the others."""
_GAP = 1.5
"""Distances of slices that are a gap, in the ordinary one."""
_SHIFT, _DRIFT = 0.1, 0.25
"""By how many pixels and by how many slices one may lie off the line through the first and the
last: more, and it is not where the affine says."""
_TILT = 0.02
"""Sine of the largest angle between the stack and its slices' normal: about one degree."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where one picture lies."""

    position_mm: tuple[float, float, float]
    """Centre of the first pixel."""
    along_row: tuple[float, float, float]
    """Direction in which the column index grows."""
    along_column: tuple[float, float, float]
    spacing_mm: tuple[float, float]
    """Distance of rows, and of columns, as PixelSpacing has them."""
    thickness_mm: float
    """What a stack of one has for its distance of slices."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Return the direction in which slices follow each other."""
        return np.cross(self.along_row, self.along_column)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Planes in the order of a volume."""

    order: tuple[int, ...]
    """Index of the plane of each slice."""
    affine: NDArray[np.float64]
    """[4, 4], index (column, row, slice) to mm in RAS."""


def stack(path: Path, planes: Sequence[Plane]) -> Stack:
    """Return the order of the planes along their normal, and their affine.

    Raises:
        BadFileError: not one direction or pixel size, two at one place, a gap, uneven distances,
            one beside the others, or a stack that leans (a CT with a tilted gantry).
    """
    first = planes[0]
    _check_alike(path, planes)
    positions = np.array([plane.position_mm for plane in planes])
    depth = positions @ first.normal
    order = np.argsort(depth, kind="stable")
    step = first.normal * first.thickness_mm
    if len(planes) > 1:
        _check_distances(path, np.diff(depth[order]))
        step = (positions[order[-1]] - positions[order[0]]) / (len(planes) - 1)
        across = step - first.normal * (step @ first.normal)
        if np.linalg.norm(across) > _TILT * np.linalg.norm(step):
            degrees = np.degrees(np.arcsin(np.linalg.norm(across) / np.linalg.norm(step)))
            raise BadFileError(
                path,
                f"has slices that are stacked {degrees:.1f} degrees off their normal (a tilted "
                "gantry?)",
                "resample it to an upright volume first",
            )
        _check_line(path, first, positions[order], step)
    rows_mm, columns_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.along_row) * columns_mm
    affine[:3, 1] = np.array(first.along_column) * rows_mm
    affine[:3, 2] = step
    affine[:3, 3] = positions[order[0]]
    return Stack(order=tuple(int(index) for index in order), affine=LPS_TO_RAS @ affine)


def _check_alike(path: Path, planes: Sequence[Plane]) -> None:
    numbers = np.array([[*p.position_mm, *p.along_row, *p.along_column] for p in planes])
    sizes_mm = np.array([[*p.spacing_mm, p.thickness_mm] for p in planes])
    low, high = SIZES_MM
    if not (np.isfinite(numbers).all() and ((sizes_mm >= low) & (sizes_mm <= high)).all()):
        raise BadFileError(
            path, "has a position or a pixel size that is no length", "correct its header"
        )
    directions = numbers[:, 3:]
    frame = directions[0].reshape(2, 3)
    if np.abs(frame @ frame.T - np.eye(2)).max() > 10 * _SAME_DIRECTION:
        raise BadFileError(
            path, "has rows and columns that are not at right angles", "correct its header"
        )
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        kinds = len(np.unique(np.round(directions, 2), axis=0))
        raise BadFileError(
            path,
            f"has slices in {kinds} directions (a localizer?)",
            "give each direction a series of its own, or leave it out",
        )
    if np.abs(sizes_mm[:, :2] - sizes_mm[0, :2]).max() > 1e-3 * sizes_mm[0, :2].min():
        raise BadFileError(
            path, "has slices of several pixel sizes", "export slices of one pixel size together"
        )


def _check_line(
    path: Path, first: Plane, positions_mm: NDArray[np.float64], step: NDArray[np.float64]
) -> None:
    """positions_mm: [slices, 3], in their order. step: [3], from one to the next."""
    off = positions_mm - (positions_mm[0] + np.arange(len(positions_mm))[:, None] * step)
    along = off @ first.normal
    across = np.linalg.norm(off - along[:, None] * first.normal, axis=1)
    if across.max() > max(_SHIFT * min(first.spacing_mm), UNEVEN_MM):
        raise BadFileError(
            path,
            f"has a slice that lies {across.max():.4g} mm beside the others",
            "correct its header, or resample it to one grid first",
        )
    if np.abs(along).max() > _DRIFT * np.linalg.norm(step):
        raise BadFileError(
            path,
            "has slices whose distances change from one end to the other",
            "resample it to even slices first",
        )


def _check_distances(path: Path, apart_mm: NDArray[np.float64]) -> None:
    """apart_mm: distances of neighbours, all 0 or more."""
    twice = int((apart_mm < UNEVEN_MM).sum())
    if twice:
        raise BadFileError(
            path,
            f"has {twice} slices at a place where another one is (several times, echoes or "
            "weightings in one series?)",
            "export one volume a series, or take one of them: wardround-site import --time-point 1",
        )
    usual_mm = float(np.median(apart_mm))
    widest_mm, narrowest_mm = float(apart_mm.max()), float(apart_mm.min())
    if widest_mm > _GAP * usual_mm:
        gaps = int((apart_mm > _GAP * usual_mm).sum())
        raise BadFileError(
            path,
            f"lacks slices in {gaps} places (slices are {usual_mm:.4g} mm apart, there "
            f"{widest_mm:.4g} mm)",
            "export the whole series again",
        )
    if max(widest_mm - usual_mm, usual_mm - narrowest_mm) > max(_UNEVEN * usual_mm, UNEVEN_MM):
        raise BadFileError(
            path,
            f"has slices at uneven distances ({narrowest_mm:.4g} to {widest_mm:.4g} mm)",
            "resample it to even slices first",
        )
