"""Where a site's DICOM images lie, de-identified: COHORT/PATIENT/SERIES/IMAGE.dcm.

Nothing is written before it is de-identified, so a crash leaves no name behind.
"""

import io
import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom import FileDataset, dcmwrite
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from client.deidentify.dataset import MADE_BY, Done, deidentify
from client.deidentify.profile import EDITION
from client.deidentify.pseudonyms import Pseudonyms
from client.mapping import Names
from client.preflight.burned_in import LETTERS, letters_in
from client.readers import BadFileError
from client.readers.dicom_files import read_header, refusing
from client.readers.dicom_pixels import decoded
from common.secret_files import PRIVATE, private_folder, replace_file

COHORT, LOG = "cohort", "deidentification.jsonl"
_CONTENT = ("PixelData", "ROIContourSequence")
_LABELS = (SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7", RTStructureSetStorage)
"""The second is a label map, which pydicom has no name for."""
_SLICES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)
"""What scanners make has no text in it; what is derived from it, and saved screens, may."""


@dataclass(kw_only=True)
class Store:
    """A site's de-identified images."""

    folder: Path
    log: Path
    pseudonyms: Pseudonyms
    names: Names = field(default_factory=Names)
    kept: int = 0
    known: int = 0
    """Images that were there already."""
    done: Done = field(default_factory=Counter)
    """What was done to attributes since the last line of the log."""
    logged: int = 0
    """Images of the lines of the log so far."""

    def add(self, found: FileDataset, source: Path) -> Path:
        """De-identify one data set, which is changed, and write it; return where it lies.

        source: names the data set in errors; what was sent over a network has none of its own.

        Raises:
            BadFileError: no image and no labels, no UID, text in the pixels, private attributes
                without which it cannot be read, another image of its UID, or imported before.
        """
        with refusing(source, "cannot be de-identified"):
            _check(found, source)
            done = deidentify(found, self.pseudonyms, self.names)
            path = (
                self.folder
                / str(found.PatientID)
                / str(found.SeriesInstanceUID)
                / f"{found.SOPInstanceUID}.dcm"
            )
            content = io.BytesIO()
            dcmwrite(content, found, enforce_file_format=True)
        if path.exists():
            _check_same(path, found, source)
            self.known += 1
            return path
        for folder in (self.folder, path.parents[1], path.parent):
            private_folder(folder)
        replace_file(path, content.getvalue())
        self.kept += 1
        self.done += done
        return path

    def write_log(self) -> None:
        """Append a line: when, how many images, which attributes were changed how often."""
        if self.kept == self.logged:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "profile": EDITION,
            "images": self.kept - self.logged,
            "attributes": _by_action(self.done),
        }
        private_folder(self.log.parent)
        self.log.touch(mode=PRIVATE)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        self.done, self.logged = Counter(), self.kept


def _check_same(path: Path, found: FileDataset, source: Path) -> None:
    """Raise BadFileError where the image of this UID that is there is another one."""
    there = read_header(path, pixels=True)
    # A header may differ: another mapping file, another edition of the profile.
    if any(there.get(name) != found.get(name) for name in _CONTENT):
        raise BadFileError(
            source,
            "has the UID of another image that is there already",
            "find out which of the two is right, and leave the other out",
        )


def _by_action(done: Done) -> Mapping[str, Mapping[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (action, name), count in sorted(done.items()):
        found.setdefault(str(action), {})[name] = count
    return found


def _check(found: FileDataset, source: Path) -> None:
    for name in ("PatientID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not str(found.get(name, "") or "").strip():
            raise BadFileError(source, f"has no {name}", "leave it out, or export it again")
    if str(found.get("DeidentificationMethod", "")).startswith(MADE_BY):
        raise BadFileError(source, "was imported before", "leave it where it is")
    if found.SOPClassUID in _LABELS:
        return
    if "TotalPixelMatrixRows" in found:
        raise BadFileError(source, "is a whole slide", "leave it out: no study here reads one")
    if "PixelData" not in found:
        raise BadFileError(
            source, "holds neither an image nor labels", "leave it out: a study needs none of it"
        )
    if "MOSAIC" in found.get("ImageType", []):
        raise BadFileError(
            source,
            "is a Siemens mosaic, which cannot be read without its private attributes",
            "convert it to NIfTI, or export one file a slice",
        )
    said = str(found.get("BurnedInAnnotation") or "").strip().upper()
    if said == "YES" or (said != "NO" and _has_text(found, source)):
        raise BadFileError(
            source,
            "has text in its pixels, which may name the patient",
            "black it out, or look at it, and export it again with BurnedInAnnotation NO",
        )


def _has_text(found: FileDataset, source: Path) -> bool:
    """Return whether letters are seen where there may be some: not on what a scanner made."""
    grey = int(found.get("SamplesPerPixel", 1)) == 1
    if grey and found.SOPClassUID in _SLICES and _is_original_slice(found):
        return False
    channels = 1 if grey and found.PhotometricInterpretation != "PALETTE COLOR" else 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames_FCRK = decoded(source, found, channels)
    return any(letters_in(frame_CRK.swapaxes(1, 2)) >= LETTERS for frame_CRK in frames_FCRK)


def _is_original_slice(found: FileDataset) -> bool:
    placed = found.get("ImagePositionPatient") or found.get("PerFrameFunctionalGroupsSequence")
    return bool(placed) and list(found.get("ImageType") or [])[:1] == ["ORIGINAL"]
