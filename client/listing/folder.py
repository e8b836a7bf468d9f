"""The rows of a folder that nobody has made a manifest of."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from client.content import files_of
from client.listing import decathlon
from client.listing.bids import bids_rows, is_bids
from client.listing.listing import Listing
from client.manifest import Row, listed_rows, read_folder
from client.readers.registry import READERS, check_dicom_installed, ending, is_dicom, stem

MANIFESTS = ("manifest.csv", "manifest.tsv")


def listing_of(root: Path, mask_pattern: str = "*") -> Listing:
    """Return the rows of a manifest file, or of a folder: those of its manifest if it has one.

    A DICOMDIR stands for the files that it names.

    Raises:
        ValueError: nothing that can be read, or a manifest that cannot.
    """
    if root.is_file() and root.name != decathlon.NAME and not is_dicom(root):
        return Listing(rows=listed_rows(root))
    for name in MANIFESTS:
        if (root / name).is_file():
            return Listing(rows=listed_rows(root / name))
    return found_in(root, mask_pattern)


def found_in(root: Path, mask_pattern: str = "*") -> Listing:
    """Return the rows of a folder, one at least, whatever manifest it has.

    The first of these that is there: a dataset.json; BIDS; images/ with its masks, as read_folder
    has it; DICOM series; pictures and volumes wherever they lie, each a patient of its own, with
    the folder as its class where each lies in a folder of the root.

    Raises:
        ValueError: no image, or two masks of one name in masks/.
    """
    if not root.exists():
        raise ValueError(f"{root} does not exist; give the folder of the images, or a manifest")
    listing = _found_in(root, mask_pattern)
    if not listing.rows:
        more = f" ({listing.others} DICOM files hold none)" if listing.others else ""
        raise ValueError(
            f"{root} holds no images{more}; give the folder of the images, or a manifest "
            f"({MANIFESTS[0]})"
        )
    return listing


def _found_in(root: Path, mask_pattern: str) -> Listing:
    if root.is_file() and is_dicom(root):
        # The files of an index have whole paths, without links.
        return _dicom_rows(root.resolve().parent, _indexed(root), mask_pattern)
    data_list = root if root.is_file() else root / decathlon.NAME
    if data_list.is_file():
        return Listing(rows=decathlon.decathlon_rows(data_list))
    if is_bids(root):
        return bids_rows(root, mask_pattern)
    if (root / "images").is_dir():
        return Listing(rows=read_folder(root))
    files = files_of(root) if root.is_dir() else []
    dicom = [file for file in files if is_dicom(file)]
    if dicom:
        return _dicom_rows(root, dicom, mask_pattern)
    rows = [Row(image=file, patient=stem(file)) for file in files if ending(file) in READERS]
    return Listing(rows=_classes(root, rows))


def _dicom_rows(root: Path, files: Sequence[Path], mask_pattern: str) -> Listing:
    check_dicom_installed(root)
    # A site without DICOM does without its libraries.
    from client.listing.dicom import dicom_rows

    return dicom_rows(root, files, mask_pattern)


def _indexed(file: Path) -> Sequence[Path]:
    """Return the files that a DICOMDIR names, or the one file itself."""
    check_dicom_installed(file)
    from client.readers.dicom_files import dicom_files

    return dicom_files(file)


def _classes(root: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the folder as their label, where each lies in a folder of the root."""
    if any(row.image.parent.parent != root for row in rows):
        return list(rows)
    return [Row(image=row.image, label=row.image.parent.name, patient=row.patient) for row in rows]


def by_folder(files: Sequence[Path]) -> Mapping[Path, list[Path]]:
    """Return the files of each folder."""
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in files:
        found[file.parent].append(file)
    return found
