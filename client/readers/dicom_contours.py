"""RTSTRUCT: closed outlines in mm, filled on the grid of their image.

A voxel's label is the number of its region (ROINumber).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from pydicom import Dataset

from client.readers.dicom_files import refusing
from client.readers.dicom_grid import affine_of, overlap
from client.readers.dicom_planes import LPS_TO_RAS
from client.readers.picture import BadFileError, Picture

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_POINT = "POINT"
"""A place, such as the isocentre: it has no area to lose."""
_OFF_PLANE = 0.5
"""Slices by which a contour may lie off the nearest slice: half-way it belongs to none."""
_ONE_DEPTH = 0.05
"""Slices by which contours of one depth may differ; rounded numbers are below it."""
_NUDGE = np.array([1e-3, 2e-3])
"""Voxels by which a centre is taken to lie to the right, front or head of where it is. One on an
outline is then inside on one side and outside on the other, whatever way the outline runs: areas
are right, and regions that touch do not overlap. More than contours are rounded by, and not equal,
so that no edge at 45 degrees goes through."""


def regions(path: Path, header: Dataset, image: Picture) -> Picture:
    """Return the regions of an RTSTRUCT as labels on the image's grid, int64, one channel.

    Raises:
        BadFileError: regions that overlap, have no area or the number 0, or do not lie on the
            slices of the image.
    """
    affine = affine_of(path, image, _frames(header))
    labels = np.zeros(image.array_CS.shape[1:], np.int64)
    for number, inside in _drawn(path, header, affine, labels.shape):
        if labels[inside].any():
            overlap(path)
        labels[inside] = number
    return Picture(
        array_CS=labels[None],
        spacing_mm=image.spacing_mm,
        affine=affine,
        frame_of_reference=image.frame_of_reference,
    )


def _frames(header: Dataset) -> Iterator[str]:
    for frame in header.get("ReferencedFrameOfReferenceSequence", []):
        yield str(frame.get("FrameOfReferenceUID") or "")
    for roi in header.get("StructureSetROISequence", []):
        yield str(roi.get("ReferencedFrameOfReferenceUID") or "")


def _drawn(
    path: Path, header: Dataset, affine: NDArray[np.float64], shape: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield the number of each region that has contours, and its voxels.

    A voxel is inside where its centre is inside an odd number of the region's outlines on its
    slice: an outline within another is a hole.
    """
    to_index = np.linalg.inv(affine) @ LPS_TO_RAS
    with refusing(path, "has contours that cannot be understood"):
        for region in header.get("ROIContourSequence", []):
            number = int(region.ReferencedROINumber)
            outlines = _outlines(path, number, region)
            if not outlines:
                continue
            inside = np.zeros(shape, np.bool_)
            depths: dict[tuple[int, int], float] = {}
            for points_mm in outlines:
                points = points_mm @ to_index[:3, :3].T + to_index[:3, 3]
                _add_outline(path, inside, points, depths)
            if not inside.any():
                raise BadFileError(
                    path,
                    f"has the region {number}, whose outlines hold no voxel of its image",
                    "leave the region out, or name the image it was drawn on",
                )
            yield number, inside


def _outlines(path: Path, number: int, region: Dataset) -> Sequence[NDArray[np.float64]]:
    """Return the closed outlines of a region, each [N, 3] in mm (LPS)."""
    contours = [c for c in region.get("ContourSequence", []) if c.ContourGeometricType != _POINT]
    kinds = {str(contour.ContourGeometricType) for contour in contours}
    if kinds.difference(_CLOSED):
        raise BadFileError(
            path,
            f"has the region {number} with contours that are not closed",
            "close them, or leave the region out",
        )
    if contours and number < 1:
        raise BadFileError(
            path,
            f"has a region with the number {number}, and 0 is the background",
            "number the regions from 1",
        )
    return [np.array(contour.ContourData, float).reshape(-1, 3) for contour in contours]


def _add_outline(
    path: Path,
    inside: NDArray[np.bool_],
    points: NDArray[np.float64],
    depths: dict[tuple[int, int], float],
) -> None:
    """points: [N, 3] in voxels. depths: by axis and slice, where the outlines so far lie."""
    # The axis of slices is the one along which the outline is flat.
    axis = int(np.argmin(np.ptp(points, axis=0)))
    slices = points[:, axis]
    depth = float(slices.mean())
    nearest = int(np.rint(depth))
    if np.abs(slices - nearest).max() >= _OFF_PLANE:
        raise BadFileError(
            path,
            "has a contour that crosses the slices of its image",
            "name the image it was drawn on",
        )
    # Only outlines of one plane are holes of each other: what lies above is not.
    if abs(depths.setdefault((axis, nearest), depth) - depth) > _ONE_DEPTH:
        raise BadFileError(
            path,
            "has contours at several depths within one slice of its image",
            "name the image it was drawn on, whose slices are thinner",
        )
    flat = np.delete(points, axis, axis=1)
    plane = np.moveaxis(inside, axis, 0)
    if not 0 <= nearest < len(plane) or (flat < -1).any() or (flat > plane.shape[1:]).any():
        raise BadFileError(
            path, "has a contour outside of its image", "name the image it was drawn on"
        )
    # Only where the outline is: a slice has many more voxels than a small organ.
    low = np.maximum(np.floor(flat.min(axis=0)).astype(int), 0)
    high = np.ceil(flat.max(axis=0)).astype(int) + 1
    box = plane[nearest, low[0] : high[0], low[1] : high[1]]
    centres = np.moveaxis(np.indices(box.shape), 0, -1).reshape(-1, 2) + low
    box ^= Outline(flat).contains_points(centres + _NUDGE).reshape(box.shape)
