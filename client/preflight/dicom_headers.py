"""What the headers of a DICOM series say. Names of attributes, no values."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR

from client.deidentify.profile import Action, action_for
from client.preflight.headers import About
from client.readers.dicom_files import dicom_files, read_header, refusing
from client.readers.dicom_frames import frame_planes
from client.readers.dicom_planes import LPS_TO_RAS

PRIVATE = "private attributes"
_PERSON = ("Patient", "Other", "Accession", "Institution")
_MOST_TESLA = 100
_PLAIN = ("UI", "DA", "TM", "DT")
"""Kinds of attributes that every file has: UIDs and times."""


def about_series(path: Path) -> About:
    """Return what the headers of a file or a series say, all of its files together.

    Raises:
        BadFileError: one of them cannot be read.
    """
    with refusing(path):
        headers = [read_header(file) for file in dicom_files(path)]
        if not headers:
            return About()
        first = headers[0]
        named = {name for one in headers for name in identifying(one)}
        return About(
            modality=str(first.get("Modality", "")),
            scanner=_words(first, "Manufacturer", "ManufacturerModelName"),
            field_t=_tesla(first),
            orientation=_orientation(first),
            identifying=tuple(sorted(named, key=_of_persons_first)),
            says_burned_in=any(one.get("BurnedInAnnotation") == "YES" for one in headers),
        )


def identifying(header: Dataset) -> Iterator[str]:
    """Yield the attributes that the Basic Profile takes out of a file, and that are not empty.

    Of a file that says it is de-identified: those that the profile removes or empties, and names
    that are not the pseudonym. What it replaces or renames is then taken for replaced.
    """
    done = header.get("PatientIdentityRemoved") == "YES"
    for element in _elements(header):
        action = action_for(element)
        if action is None or element.VR == "SQ" or not str(element.value).strip("^ "):
            continue
        if element.tag.is_private_creator:
            continue
        may_be_pseudonym = element.VR == "PN" or action is Action.EMPTY
        left = may_be_pseudonym and str(element.value) != str(header.get("PatientID"))
        if not done or action is Action.REMOVE or left:
            yield PRIVATE if element.tag.is_private else element.keyword or str(element.tag)


def _elements(header: Dataset) -> Iterator[DataElement]:
    for element in header:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _of_persons_first(name: str) -> tuple[int, str]:
    kind = dictionary_VR(name) if name.isalpha() else ""
    person = kind == "PN" or name.startswith(_PERSON)
    return 0 if person else 2 if kind in _PLAIN else 1, name


def _words(header: Dataset, *names: str) -> str:
    return " ".join(str(header.get(name, "") or "").strip() for name in names).strip()


def _tesla(header: Dataset) -> str:
    strength = float(header.get("MagneticFieldStrength") or 0)
    # Some scanners count in gauss.
    return f"{strength / 1e4 if strength > _MOST_TESLA else strength:g}" if strength else ""


def _orientation(header: Dataset) -> str:
    frames = int(header.get("NumberOfFrames") or 1)
    planes = frame_planes(header, frames)
    if planes is None:
        return ""
    axes = np.eye(4)
    axes[:3, 0], axes[:3, 1] = planes[0].along_row, planes[0].along_column
    axes[:3, 2] = planes[0].normal
    return "".join(str(axis) for axis in nib.aff2axcodes(LPS_TO_RAS @ axes))
