"""DICOM images: a series of single pictures, a file of many frames, a radiograph.

A picture that says where it lies in the patient is a slice of a volume, also where it is the only
one; another is a flat picture. Shape suffixes: F frames, C channels, R rows, K columns.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from client.readers.dicom_files import read_header, refusing, series_files
from client.readers.dicom_frames import frame_planes
from client.readers.dicom_pixels import decoded
from client.readers.dicom_planes import LPS_TO_RAS, Plane, stack
from client.readers.picture import SIZES_MM, BadFileError, Picture, check_voxels, upright

_LABELS = ("SEG", "RTSTRUCT")


def read_dicom(path: Path, channels: int) -> Picture:
    """Return the image of a .dcm file, of a folder with one series, or of a DICOMDIR.

    Raises:
        BadFileError: no image, several series, frames that are not one volume, or pixels that
            cannot be decoded (the codec is named).
    """
    with refusing(path):
        files = series_files(path)
        if len(files) == 1:
            return _one_file(path, files[0], channels)
        return _series(path, files, channels)


def _one_file(path: Path, file: Path, channels: int) -> Picture:
    header = read_header(file, pixels=True)
    _check_image(path, header)
    if "MOSAIC" in header.get("ImageType", []):
        return _mosaic(path, header, channels)
    frames = int(header.get("NumberOfFrames") or 1)
    planes = _places(path, header, frames)
    if planes is None and frames > 1:
        raise BadFileError(
            path,
            f"has {frames} frames that do not lie in a patient (a film, or a slide)",
            "leave it out, or export it as a volume",
        )
    array_FCRK = decoded(path, header, channels)
    if planes is None:
        return _flat(path, header, array_FCRK[0])
    return _volume(path, planes, array_FCRK, _frame_of(header))


def _series(path: Path, files: Sequence[Path], channels: int) -> Picture:
    headers = [read_header(file) for file in files]
    for file, header in zip(files, headers, strict=True):
        _check_image(file, header)
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        raise BadFileError(
            path, "holds several volumes in one series", "give each file a row of its own"
        )
    if "MOSAIC" in headers[0].get("ImageType", []):
        raise BadFileError(
            path,
            f"holds {len(files)} volumes over time (a Siemens mosaic each)",
            "give each file a row of its own",
        )
    planes = [_plane_of(file, header) for file, header in zip(files, headers, strict=True)]
    # Before the pixels: a series that is no volume is told at once.
    stack(path, planes)
    frames = {frame for frame in map(_frame_of, headers) if frame}
    if len(frames) > 1:
        raise BadFileError(
            path,
            f"has slices in {len(frames)} frames of reference (the patient was put down anew?)",
            "give each frame of reference a series of its own",
        )
    sizes = {(header.Rows, header.Columns) for header in headers}
    if len(sizes) > 1:
        raise BadFileError(
            path, "has slices of several sizes", "export slices of one size together"
        )
    shape = (len(files), channels, *sizes.pop())
    check_voxels(path, math.prod(shape))
    # One slice at a time: a series of 500 is 0.5 GB as numbers.
    array_FCRK = np.empty(shape, np.float32)
    for index, file in enumerate(files):
        array_FCRK[index] = decoded(file, read_header(file, pixels=True), channels)[0]
    return _volume(path, planes, array_FCRK, "".join(frames))


def _volume(
    path: Path, planes: Sequence[Plane], array_FCRK: NDArray[np.float32], frame: str
) -> Picture:
    stacked = stack(path, planes)
    ordered_FCRK = array_FCRK[list(stacked.order)]
    return upright(ordered_FCRK.transpose(1, 3, 2, 0), stacked.affine, frame)


def _frame_of(header: Dataset) -> str:
    return str(header.get("FrameOfReferenceUID") or "")


def _flat(path: Path, header: Dataset, array_CRK: NDArray[np.float32]) -> Picture:
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1.0, 1.0)
    rows_mm, columns_mm = (float(mm) for mm in spacing)
    low, high = SIZES_MM
    if not (low <= rows_mm <= high and low <= columns_mm <= high):
        raise BadFileError(path, "has a pixel size that is no length", "correct its header")
    return Picture(
        array_CS=np.ascontiguousarray(array_CRK.transpose(0, 2, 1)),
        spacing_mm=(columns_mm, rows_mm),
    )


def _mosaic(path: Path, header: Dataset, channels: int) -> Picture:
    """Return the volume in a Siemens mosaic: all slices side by side in one picture."""
    with refusing(path, "is a Siemens mosaic that cannot be taken apart"):
        # Warns of itself when it is imported.
        from nibabel.nicom.dicomwrappers import MosaicWrapper, wrapper_from_data

        wrapper = wrapper_from_data(header)
        if not isinstance(wrapper, MosaicWrapper):
            raise BadFileError(
                path,
                "is a Siemens mosaic without the header that tells of its slices",
                "export it as one file a slice",
            )
        volume = np.asarray(wrapper.get_data(), np.float32)
        affine = LPS_TO_RAS @ wrapper.affine
    return upright(np.repeat(volume[None], channels, axis=0), affine, _frame_of(header))


def _plane_of(file: Path, header: Dataset) -> Plane:
    planes = _places(file, header, 1)
    if planes is None:
        raise BadFileError(
            file,
            "is a picture among others that does not say where it lies",
            "give each picture a row of its own",
        )
    return planes[0]


def _places(path: Path, header: Dataset, frames: int) -> list[Plane] | None:
    with refusing(path, "tells where it lies in a way that cannot be understood"):
        return frame_planes(header, frames)


def _check_image(path: Path, header: Dataset) -> None:
    if header.get("Modality") in _LABELS:
        raise BadFileError(
            path,
            f"holds labels ({header.Modality}), not an image",
            "name it as the mask of its image",
        )
    if "Rows" not in header or "PhotometricInterpretation" not in header:
        kind = getattr(header.get("SOPClassUID"), "name", "of an unknown kind")
        raise BadFileError(path, f"holds no image (it is {kind})", "leave it out")
