"""How DICOM images get into a site's cohort: de-identified, one folder a series."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.content import files_of
from client.deidentify.pseudonyms import pseudonyms_of
from client.deidentify.store import COHORT, LOG, Store
from client.mapping import Names
from client.readers import BadFileError
from client.readers.dicom_files import dicom_files, read_header
from client.readers.dicom_times import at_time
from client.readers.registry import is_dicom, is_dicom_without_mark

_INDEX = "DICOMDIR"


@dataclass(kw_only=True)
class Imported:
    """What became of the files of a folder."""

    files: int
    refused: list[BadFileError] = field(default_factory=list)
    left_out: int = 0
    """Files of another time point than the one that was asked for."""


def store_of(state: Path, names: Names, cohort: Path | None = None) -> Store:
    """Return the store of a site: its own key, its own log, cohort/ in its state folder."""
    return Store(
        folder=cohort or state / COHORT,
        log=state / LOG,
        pseudonyms=pseudonyms_of(state),
        names=names,
    )


def import_folder(
    root: Path,
    store: Store,
    each: Callable[[Sequence[Path]], Iterable[Path]] = lambda files: files,
    time_point: int | None = None,
) -> Imported:
    """Put every DICOM image below a folder into the store; what cannot be put there is told.

    A DICOMDIR stands for the files that it names.

    The store itself may lie below the folder; it is passed over. time_point: of a series with
    several volumes of one place only this one, counted from 1.

    Raises:
        ValueError: there is no such folder, no DICOM file in it, or a file of a DICOMDIR is absent.
    """
    if not root.exists():
        raise ValueError(f"{root} does not exist; give the folder that a PACS exported into")
    own = store.folder.resolve()
    listed = dicom_files(root) if root.is_file() else files_of(root)
    there = [file for file in listed if not file.resolve().is_relative_to(own)]
    files = [file for file in there if file.name != _INDEX and is_dicom(file)]
    unmarked = [file for file in there if is_dicom_without_mark(file)]
    if not files and not unmarked:
        raise ValueError(f"{root} holds no DICOM file; give the folder that a PACS exported into")
    imported = Imported(
        files=len(files) + len(unmarked), refused=[_without_mark(file) for file in unmarked]
    )
    if time_point is not None:
        whole = len(files)
        files = _of_time(files, time_point, imported)
        imported.left_out = whole - len(files) - (len(imported.refused) - len(unmarked))
    try:
        for file in each(files):
            try:
                store.add(read_header(file, pixels=True), file)
            except BadFileError as error:
                imported.refused.append(error)
    finally:
        store.write_log()
    return imported


def _of_time(files: Sequence[Path], time_point: int, imported: Imported) -> list[Path]:
    """Return the files of one time point; what cannot be told apart is refused file by file."""
    series: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        try:
            series[str(read_header(file).get("SeriesInstanceUID", ""))].append(file)
        except BadFileError as error:
            imported.refused.append(error)
    kept: list[Path] = []
    for of in series.values():
        try:
            kept += at_time(of, time_point)
        except BadFileError as error:
            imported.refused += [BadFileError(file, error.reason, error.remedy) for file in of]
    return sorted(kept)


def _without_mark(file: Path) -> BadFileError:
    return BadFileError(
        file,
        "looks like DICOM without the header of a file",
        "export it again as a DICOM file (PS3.10), or leave it out",
    )
