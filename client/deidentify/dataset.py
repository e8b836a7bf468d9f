"""One DICOM data set, less what may tell who the patient is.

Basic Application Level Confidentiality Profile (DICOM PS3.15, annex E; profile.py says which
edition), all of it and none of its options but one: descriptions and labels that a site's mapping
file lists stay (Clean Descriptors: what is left is from a list).
"""

from collections import Counter

from pydicom import DataElement, Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from client.deidentify.pixels import clean_pixels
from client.deidentify.profile import EDITION, Action, action_for
from client.deidentify.pseudonyms import Pseudonyms
from client.mapping import Names

MADE_BY = "wardround,"
METHOD = f"{MADE_BY} Basic Profile of {EDITION}"
_BASIC = ("113100", "Basic Application Confidentiality Profile")
_CLEAN_DESCRIPTORS = ("113105", "Clean Descriptors Option")
"""Of PS3.16, CID 7050."""
_NUMBERS = ("US", "SS", "UL", "SL", "FL", "FD")
_DAY, _TIME, _AGE, _WORD = "19000101", "000000", "000Y", "REMOVED"
_DUMMIES = {"DA": _DAY, "TM": _TIME, "DT": _DAY + _TIME, "AS": _AGE, "DS": "0", "IS": "0"}
_TEXTS = ("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN")
_LABELS = ("ROIName", "SegmentLabel")
_UIDS_OF_FILE = ("MediaStorageSOPInstanceUID",)
_KEPT_OF_FILE = (
    "FileMetaInformationVersion",
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
)

Done = Counter[tuple[Action, str]]
"""How often something was done to an attribute of a name. Never a value."""


def deidentify(found: FileDataset, pseudonyms: Pseudonyms, names: Names) -> Done:
    """Take out of a data set, in place, what may tell who the patient is; return what was done.

    The patient's number and name become the pseudonym, UIDs get others that fit together over all
    files, dates and times are emptied or removed, private attributes too, and so is what lies in
    PixelData beside the pixels.
    """
    patient = pseudonyms.patient(str(found.get("PatientID", "")))
    sequence = names.sequence(str(found.get("SeriesDescription", "")))
    done: Done = Counter()
    clean_pixels(found)
    _clean(found, pseudonyms, names, done)
    found.PatientID = found.PatientName = patient
    if sequence is not None:
        found.SeriesDescription = sequence
    found.PatientIdentityRemoved = "YES"
    found.DeidentificationMethod = METHOD
    found.DeidentificationMethodCodeSequence = [_code(*_BASIC)]
    if sequence is not None or names.labels:
        found.DeidentificationMethodCodeSequence.append(_code(*_CLEAN_DESCRIPTORS))
    _clean_file(found, pseudonyms)
    return done


def _clean(part: Dataset, pseudonyms: Pseudonyms, names: Names, done: Done) -> None:
    # All tags first: attributes go while we walk.
    for tag in list(part.keys()):
        element = part[tag]
        action = action_for(element)
        if action is None:
            if element.VR == "SQ":
                for item in element.value:
                    _clean(item, pseudonyms, names, done)
            continue
        if element.keyword in _LABELS and names.label(str(element.value)) is not None:
            continue
        word = "private" if element.tag.is_private else element.keyword or str(element.tag)
        # A sequence that is to be replaced holds what people wrote; no image needs one.
        if action is Action.REMOVE or (element.VR == "SQ" and action is not Action.RENAME):
            del part[tag]
            done[Action.REMOVE, word] += 1
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, pseudonyms, names, done)
        else:
            _replace(element, action, pseudonyms)
            done[action, word] += 1


def _replace(element: DataElement, action: Action, pseudonyms: Pseudonyms) -> None:
    if action is Action.RENAME:
        element.value = _renamed(element.value, pseudonyms)
    elif action is Action.REPLACE and element.VR in _NUMBERS:
        element.value = 0
    elif action is Action.EMPTY or element.VR not in (*_TEXTS, *_DUMMIES):
        element.value = None
    else:
        element.value = _DUMMIES.get(element.VR, _WORD)


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _renamed(value: object, pseudonyms: Pseudonyms) -> object:
    if isinstance(value, MultiValue | list):
        return [UID(pseudonyms.uid(str(one))) for one in value]
    return UID(pseudonyms.uid(str(value))) if value else value


def _clean_file(found: FileDataset, pseudonyms: Pseudonyms) -> None:
    """The header of the file itself has the UID too, and which machines sent it."""
    found.preamble = b"\0" * 128
    for element in list(found.file_meta):
        if element.keyword not in _KEPT_OF_FILE:
            del found.file_meta[element.tag]
    for name in _UIDS_OF_FILE:
        if name in found.file_meta:
            found.file_meta[name].value = UID(pseudonyms.uid(str(found.file_meta[name].value)))
