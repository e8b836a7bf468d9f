"""The rows of a folder of DICOM: each series an image, with the segmentation that refers to it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import Dataset

from client.listing.folder import by_folder
from client.listing.listing import Listing, fitting
from client.manifest import Row
from client.readers import BadFileError
from client.readers.dicom_files import read_header, refusing, series_in

LABELS = ("SEG", "RTSTRUCT")
_INDEX = "DICOMDIR"
_COLUMNS = {
    "sequence": ("SeriesDescription",),
    "modality": ("Modality",),
    "scanner": ("Manufacturer", "ManufacturerModelName"),
    "field_t": ("MagneticFieldStrength",),
}
"""Columns of a row, and the attributes that they are taken from."""


def dicom_rows(root: Path, files: Sequence[Path], mask_pattern: str = "*") -> Listing:
    """Return a row for each series; where several lie in one folder, one for each of their files.

    The patient is the PatientID, or the first folder below the root where the headers have none.
    Files without pixels or labels, such as reports, are counted. mask_pattern: of the file names
    of segmentations, where a series has several; one that it does not tell apart is told as such.
    """
    rows: list[tuple[str, Row]] = []
    masks: defaultdict[str, list[Path]] = defaultdict(list)
    unsorted: dict[Path, int] = {}
    others = 0
    folders = by_folder([file for file in files if file.name != _INDEX])
    above = {parent for folder in folders for parent in folder.parents}
    for folder, members in folders.items():
        series = _series_of(members)
        for uid, of in series.items():
            header = _header_of(of[0])
            if header is not None and header.get("Modality") in LABELS:
                for file in of:
                    for image in set(_refers_to(_header_of(file) or Dataset())):
                        masks[image].append(file)
            elif header is not None and "Rows" not in header:
                others += len(of)
            else:
                together = len(of) > 1 and (len(series) > 1 or folder in above)
                if together:
                    unsorted[folder] = len(series) + (folder in above)
                paths = of if together or len(of) == 1 else [folder]
                rows += [(uid, _row(root, path, of[0])) for path in paths]
    of_row = [(row, _masks_of(masks[uid], mask_pattern)) for uid, row in rows]
    return Listing(
        rows=[replace(row, mask=of[0]) if len(of) == 1 else row for row, of in of_row],
        unsorted=unsorted,
        others=others,
        several={row.image: of for row, of in of_row if len(of) > 1},
    )


def _masks_of(masks: Sequence[Path], pattern: str) -> Sequence[Path]:
    """Return the masks of a series: all of them where the pattern fits none of several."""
    return (fitting(masks, pattern) or masks) if len(masks) > 1 else masks


def _row(root: Path, image: Path, file: Path) -> Row:
    header = _header_of(file)
    told = {} if header is None else {name: _told(header, *of) for name, of in _COLUMNS.items()}
    return Row(
        image=image,
        patient=_patient(root, file, header),
        covariates={name: words for name, words in told.items() if words},
    )


def _told(header: Dataset, *attributes: str) -> str:
    return " ".join(str(header.get(name, "") or "").strip() for name in attributes).strip()


def _series_of(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each series; one that cannot be read is a series of its own."""
    found: dict[str, list[Path]] = {}
    for file in files:
        try:
            for uid, of in series_in([file]).items():
                found.setdefault(uid, []).extend(of)
        except BadFileError:
            found[str(file)] = [file]
    return found


def _header_of(file: Path) -> Dataset | None:
    """Return a header that the rest can ask without an error; None where it cannot be read."""
    try:
        with refusing(file):
            header = read_header(file)
            # What is asked below; pydicom understands an attribute when it is asked first.
            for name in {"PatientID", *(name for of in _COLUMNS.values() for name in of)}:
                header.get(name)
            list(_refers_to(header))
            return header
    except BadFileError:
        return None


def _refers_to(header: Dataset) -> Iterator[str]:
    """Yield the series that a segmentation or a set of contours was drawn on."""
    for series in header.get("ReferencedSeriesSequence", []):
        yield str(series.get("SeriesInstanceUID", ""))
    for frame in header.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            for series in study.get("RTReferencedSeriesSequence", []):
                yield str(series.get("SeriesInstanceUID", ""))


def _patient(root: Path, file: Path, header: Dataset | None) -> str:
    named = "" if header is None else str(header.get("PatientID", "") or "").strip()
    if named:
        return named
    below = file.relative_to(root).parts
    return below[0] if len(below) > 1 else file.stem
