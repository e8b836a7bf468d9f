"""One volume of a series that holds several of one place: over time, or of several echoes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from client.readers.dicom_files import read_header, refusing
from client.readers.dicom_frames import frame_planes
from client.readers.dicom_planes import UNEVEN_MM
from client.readers.picture import BadFileError

_ORDER = ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber")


def at_time(files: Sequence[Path], time_point: int) -> list[Path]:
    """Return those files of a series that are its volume of a time point, counted from 1.

    Of the pictures at each place it is the one of that number, in the order of their time, their
    acquisition and their own number. A series with one picture a place is returned whole.

    Raises:
        BadFileError: there are fewer volumes, or a picture does not say where it lies.
    """
    headers = {file: read_header(file) for file in files}
    numbers = _numbers(headers)
    volumes = max(numbers.values(), default=1)
    if volumes == 1:
        return list(files)
    if time_point > volumes:
        raise BadFileError(
            files[0].parent,
            f"holds a series of {volumes} volumes, and no time point {time_point}",
            f"give --time-point 1 to {volumes}",
        )
    return [file for file in files if numbers[file] == time_point]


def _numbers(headers: Mapping[Path, Dataset]) -> dict[Path, int]:
    """Return the how manyth at its place each picture is, from 1; 1 where one tells no place."""
    planes = {}
    for file, header in headers.items():
        with refusing(file, "tells where it lies in a way that cannot be understood"):
            found = frame_planes(header, 1) if "ImagePositionPatient" in header else None
        if found is None:
            return dict.fromkeys(headers, 1)
        planes[file] = found[0]
    in_time = sorted(headers, key=lambda file: _in_time(headers[file]))
    positions_mm = np.array([planes[file].position_mm for file in in_time])
    depth_mm = positions_mm @ planes[in_time[0]].normal
    by_depth = np.argsort(depth_mm, kind="stable")
    places = np.zeros(len(in_time), int)
    places[by_depth[1:]] = np.cumsum(np.diff(depth_mm[by_depth]) >= UNEVEN_MM)
    seen: Counter[int] = Counter()
    numbers: dict[Path, int] = {}
    first: dict[str, Path] = {}
    for file, place in zip(in_time, places.tolist(), strict=True):
        # A copy of a file is no further time.
        copied = first.setdefault(str(headers[file].get("SOPInstanceUID", file)), file)
        seen[place] += copied == file
        numbers[file] = numbers.get(copied, seen[place])
    return numbers


def _in_time(header: Dataset) -> tuple[int, ...]:
    return tuple(int(header.get(name) or 0) for name in _ORDER)
