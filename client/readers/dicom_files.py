"""DICOM files on disk: which belong together, and their headers, whatever is wrong with them."""

import functools
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydicom import FileDataset, dcmread
from pydicom.fileset import FileSet
from pydicom.uid import MediaStorageDirectoryStorage

from client.content import files_of
from client.readers.picture import BadFileError
from client.readers.registry import is_dicom

_TALKERS = ("pydicom", "highdicom", "openjpeg", "libjpeg")
_TOLD = 4
"""Series that an error names."""


@contextmanager
def refusing(path: Path, what: str = "is broken or not a DICOM file") -> Iterator[None]:
    """Make whatever a DICOM library raises for a file a BadFileError, and keep it from warning.

    Warnings and logs are kept back since they quote the header's values, which may name a patient.
    """
    _silence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadFileError:
        raise
    # A damaged header may raise anything: AttributeError, struct.error, RecursionError, ...
    except Exception as error:
        raise BadFileError(
            path,
            # No more: what a library says may quote the header.
            f"{what} ({type(error).__name__})",
            "export it again from its source, or leave it out",
        ) from error


@functools.cache
def _silence() -> None:
    """Keep the logs of DICOM libraries to themselves, once for the process."""
    for name in _TALKERS:
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


def read_header(path: Path, pixels: bool = False) -> FileDataset:
    """Return a file's data set, without its pixels unless they are asked.

    Raises:
        BadFileError: the file cannot be read.
    """
    with refusing(path):
        return dcmread(path, stop_before_pixels=not pixels)


def series_files(path: Path) -> list[Path]:
    """Return the files of the one series that a file, a folder or a DICOMDIR stands for.

    Files of a folder without the mark of DICOM are passed over.

    Raises:
        BadFileError: there is none, or there are several series.
    """
    series = series_in(dicom_files(path))
    if not series:
        raise BadFileError(
            path,
            "holds no DICOM file",
            "name the folder of one series, or leave it out",
        )
    if len(series) > 1:
        told = ", ".join(f"{uid or 'without UID'} ({len(of)})" for uid, of in series.items())
        raise BadFileError(
            path,
            f"holds {len(series)} series" + (f": {told}" if len(series) <= _TOLD else ""),
            "give each series a folder of its own: wardround-site import does that",
        )
    return next(iter(series.values()))


def dicom_files(path: Path) -> list[Path]:
    """Return the DICOM files of a file, a folder or a DICOMDIR, sorted; indexes are left out.

    Raises:
        BadFileError: a DICOMDIR that cannot be read, or that names files which are not there.
    """
    if path.is_dir():
        index = path / "DICOMDIR"
        return dicom_files(index) if index.is_file() else [f for f in files_of(path) if is_dicom(f)]
    if path.name != "DICOMDIR":
        return [path]
    with refusing(path, "is not a DICOMDIR that can be followed"):
        # A copied disc may have its folders elsewhere: what is absent is told by name.
        files = sorted(Path(instance.path) for instance in FileSet(path))
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise BadFileError(
            path,
            f"names {len(absent)} files that are not there, such as {absent[0].name}",
            "copy the whole disc again",
        )
    return files


def series_in(files: Iterable[Path]) -> Mapping[str, list[Path]]:
    """Return the files of each SeriesInstanceUID; an index of a disc belongs to none.

    Raises:
        BadFileError: one cannot be read.
    """
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        with refusing(file):
            header = read_header(file)
            uid = str(header.get("SeriesInstanceUID", ""))
            is_index = header.get("SOPClassUID") == MediaStorageDirectoryStorage
        if not is_index:
            found[uid].append(file)
    return found
