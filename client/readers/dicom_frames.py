"""Where the frames of a DICOM file lie, and what their stored numbers mean.

An ordinary slice says it in its own header; an enhanced (multi-frame) image in the functional
groups of all frames and of each one (PS3.3, C.7.6.16).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from client.readers.dicom_files import refusing
from client.readers.dicom_planes import Plane

_THICKNESS_MM = 1.0
"""Of a single slice that tells none."""


def frame_planes(header: Dataset, frames: int) -> list[Plane] | None:
    """Return the place of each frame; None where they do not lie in a patient.

    Raises:
        Exception: as pydicom does, for a header that is broken.
    """
    if "PerFrameFunctionalGroupsSequence" not in header:
        return None if frames > 1 or "ImagePositionPatient" not in header else [_plane(header)]
    places = []
    for frame in range(frames):
        found: dict[str, Dataset] = {}
        for macro in ("PlanePosition", "PlaneOrientation", "PixelMeasures"):
            group = frame_group(header, frame, f"{macro}Sequence")
            if group is None:
                return None
            found[macro] = group
        places.append(_enhanced_plane(found))
    return places


def frame_group(header: Dataset, frame: int, macro: str) -> Dataset | None:
    """Return the item of a functional group of a frame, its own or the one that all share."""
    for groups in (
        header.PerFrameFunctionalGroupsSequence[frame],
        *header.get("SharedFunctionalGroupsSequence", [])[:1],
    ):
        if groups.get(macro):
            item: Dataset = groups[macro][0]
            return item
    return None


def frame_scales(
    path: Path, header: Dataset, array_FCRK: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the frames with their own rescale slopes and intercepts applied, in place."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return array_FCRK
    with refusing(path, "has a rescale slope that is no number"):
        for frame, values in enumerate(array_FCRK):
            scale = frame_group(header, frame, "PixelValueTransformationSequence")
            if scale is not None:
                values *= float(scale.RescaleSlope)
                values += float(scale.RescaleIntercept)
    return array_FCRK


def _plane(header: Dataset) -> Plane:
    return _plane_from(header, header.ImagePositionPatient, header.ImageOrientationPatient)


def _enhanced_plane(found: Mapping[str, Dataset]) -> Plane:
    return _plane_from(
        found["PixelMeasures"],
        found["PlanePosition"].ImagePositionPatient,
        found["PlaneOrientation"].ImageOrientationPatient,
    )


def _plane_from(measures: Dataset, position: list[float], orientation: list[float]) -> Plane:
    x, y, z = (float(mm) for mm in position)
    directions = [float(cosine) for cosine in orientation]
    rows_mm, columns_mm = (float(mm) for mm in measures.PixelSpacing)
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    return Plane(
        position_mm=(x, y, z),
        along_row=(directions[0], directions[1], directions[2]),
        along_column=(directions[3], directions[4], directions[5]),
        spacing_mm=(rows_mm, columns_mm),
        thickness_mm=abs(float(thickness or _THICKNESS_MM)),
    )
