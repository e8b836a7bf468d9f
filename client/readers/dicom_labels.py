"""DICOM-SEG and RTSTRUCT as labels on the grid of their image.

The label of a voxel is the number of its segment (SegmentNumber) or of its region (ROINumber).
"""

from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset

from client.readers.dicom_contours import regions
from client.readers.dicom_files import read_header, refusing, series_files
from client.readers.dicom_frames import frame_group
from client.readers.dicom_grid import affine_of, overlap
from client.readers.dicom_planes import LPS_TO_RAS
from client.readers.picture import BadFileError, Picture, upright, whole_numbers

_TOLERANCE = 0.05
"""Voxels by which a segmentation's grid may be off its image's; rounded headers are below it."""


def read_dicom_mask(path: Path, image: Picture | None) -> Picture:
    """Return the labels of a DICOM-SEG or an RTSTRUCT, int64, one channel.

    image: its image; a segmentation has a grid of its own where none is given.

    Raises:
        BadFileError: neither of the two, probabilities, labels that overlap or would be lost, or
            labels that do not lie on the grid of the image.
    """
    with refusing(path):
        files = series_files(path)
        if len(files) > 1:
            raise BadFileError(
                path,
                f"holds {len(files)} files, and a mask is one",
                "name the file that is right",
            )
        header = read_header(files[0], pixels=True)
        modality = header.get("Modality")
        if modality == "SEG":
            return _segments(path, header, image)
        if modality == "RTSTRUCT":
            return _contours(path, header, image)
        raise BadFileError(
            path,
            f"is of modality {modality}, and labels are SEG or RTSTRUCT",
            "name its segmentation as the mask",
        )


def names_of_labels(path: Path) -> dict[int, str]:
    """Return the names of a file's segments or regions, by number.

    Raises:
        BadFileError: it cannot be read.
    """
    with refusing(path, "has segments that cannot be read"):
        header = read_header(series_files(path)[0])
        segments = {s.SegmentNumber: s.SegmentLabel for s in header.get("SegmentSequence", [])}
        regions = {
            r.ROINumber: r.get("ROIName") or "" for r in header.get("StructureSetROISequence", [])
        }
        return {int(number): str(name) for number, name in {**segments, **regions}.items()}


def _segments(path: Path, header: Dataset, image: Picture | None) -> Picture:
    if "TotalPixelMatrixRows" in header:
        raise BadFileError(path, "has the segments of a slide, which is no volume", "leave it out")
    if header.get("SegmentationType") == "FRACTIONAL":
        _check_certain(path, header)
    with refusing(path, "is a segmentation that cannot be read"):
        segments = hd.seg.Segmentation.from_dataset(header, copy=False)
        if not frame_group(header, 0, "PlanePositionSequence"):
            return _flat_segments(path, segments, image)
        geometry = segments.get_volume_geometry()
    if geometry is None:
        raise BadFileError(
            path,
            "has segments that do not lie on slices of one volume",
            "leave it out, or draw them on a volume",
        )
    with refusing(path, "has segments that overlap, or cannot be put together"):
        volume = segments.get_volume(combine_segments=True)
    if image is None:
        return upright(
            whole_numbers(path, volume.array[None]), LPS_TO_RAS @ volume.get_affine("LPS")
        )
    return _on_grid(path, volume, image)


def _check_certain(path: Path, header: Dataset) -> None:
    with refusing(path, "has segments that cannot be decoded"):
        values = np.unique(header.pixel_array)
        most = int(header.MaximumFractionalValue)
    if not set(values.tolist()) <= {0, most}:
        raise BadFileError(
            path,
            "holds probabilities (a fractional segmentation), and labels are whole numbers",
            "save it as a binary segmentation",
        )


def _flat_segments(path: Path, segments: hd.seg.Segmentation, image: Picture | None) -> Picture:
    """Return the segments of a radiograph, which has no place in a patient."""
    frames = segments.pixel_array.reshape(-1, segments.Rows, segments.Columns)
    labels_RK = np.zeros(frames.shape[1:], np.int64)
    for index, frame in enumerate(frames):
        group = frame_group(segments, index, "SegmentIdentificationSequence")
        assert group is not None
        if (labels_RK[frame > 0] > 0).any():
            overlap(path)
        labels_RK[frame > 0] = group.ReferencedSegmentNumber
    return Picture(
        array_CS=np.ascontiguousarray(labels_RK.T[None]),
        spacing_mm=image.spacing_mm if image else (1.0, 1.0),
    )


def _on_grid(path: Path, volume: hd.Volume, image: Picture) -> Picture:
    """Return the segments cut and filled up to the image's grid, never resampled."""
    affine = affine_of(path, image, [volume.frame_of_reference_uid or ""])
    grid = hd.VolumeGeometry(
        LPS_TO_RAS @ affine,
        spatial_shape=image.array_CS.shape[1:],
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
    )
    try:
        placed = volume.match_geometry(grid, tol=_TOLERANCE * min(image.spacing_mm))
    except RuntimeError as error:
        raise BadFileError(
            path,
            "has voxels that are not those of its image",
            "name the image it was drawn on, or resample one to the other",
        ) from error
    outside = int((volume.array > 0).sum() - (placed.array > 0).sum())
    if outside:
        raise BadFileError(
            path,
            f"has {outside} labelled voxels outside of its image",
            "name the image it was drawn on",
        )
    labels_1S = whole_numbers(path, placed.array[None])
    return Picture(
        array_CS=labels_1S,
        spacing_mm=image.spacing_mm,
        affine=affine,
        frame_of_reference=image.frame_of_reference,
    )


def _contours(path: Path, header: Dataset, image: Picture | None) -> Picture:
    if image is None:
        raise BadFileError(
            path, "holds contours, which have no grid of their own", "name its image beside it"
        )
    return regions(path, header, image)
