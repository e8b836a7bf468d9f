"""The Basic Application Level Confidentiality Profile: what is to happen to which attribute.

DICOM PS3.15 2026c, table E.1-1, as the library dicom-anonymizer has it; and, since a table cannot
list what people will write where, all other attributes by what they may hold.
"""

import functools
from collections.abc import Mapping
from enum import StrEnum

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import DataElement
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

EDITION = "DICOM PS3.15 2026c, table E.1-1"
_CURVES, _OVERLAYS, _REPEATING = 0x5000, 0x6000, 0xFF00
_STANDARD = "1.2.840.10008."
"""UIDs below it are of the standard, not of a file."""
_FREE = {"PN", "DA", "DT", "TM", "LT", "ST", "UT", "UC", "UR", "AE", "LO", "SH"}
"""Kinds of values that a person may have written, or that tell a day."""
_NEEDED = {
    "Manufacturer",
    "ManufacturerModelName",
    "ConvolutionKernel",
    "ImagedNucleus",
    "RescaleType",
    "ModalityLUTType",
    "CodeValue",
    "CodingSchemeDesignator",
    "CodingSchemeVersion",
}
"""Attributes of such a kind, and not in the table, by which an image is read or told apart; a
scanner or a standard writes them."""


class Action(StrEnum):
    """What the profile asks for; where it leaves a choice, the one that keeps the file valid."""

    REMOVE = "removed"
    """X."""
    EMPTY = "emptied"
    """Z, X/Z."""
    REPLACE = "replaced"
    """D, Z/D, X/D, X/Z/D."""
    RENAME = "renamed"
    """U and X/Z/U*: a UID gets another one, the same wherever it stands."""


_WRITTEN = {
    "ContentLabel": Action.REPLACE,
    "SegmentLabel": Action.REPLACE,
    "SegmentAlgorithmName": Action.REPLACE,
    "CodeMeaning": Action.REPLACE,
    "DeidentificationMethod": Action.REPLACE,
}
"""Texts without which a file is not valid. What a code means its value tells."""


@functools.cache
def _actions() -> tuple[Mapping[BaseTag, Action], list[tuple[int, int, int, int, Action]]]:
    """Return the actions of single attributes, and of groups of them as value and mask."""
    lists = {
        Action.REMOVE: table.X_TAGS,
        Action.EMPTY: [*table.Z_TAGS, *table.X_Z_TAGS],
        Action.REPLACE: [
            *table.D_TAGS,
            *table.Z_D_TAGS,
            *table.X_D_TAGS,
            *table.X_Z_D_TAGS,
        ],
        Action.RENAME: [*table.U_TAGS, *table.X_Z_U_STAR_TAGS],
    }
    single: dict[BaseTag, Action] = {}
    groups = []
    for action, tags in lists.items():
        for tag in tags:
            if len(tag) == 4:
                groups.append((*tag, action))
            else:
                single[Tag(*tag)] = action
    return single, groups


def action_for(element: DataElement) -> Action | None:
    """Return what the profile does to an attribute; None where it may stay.

    Private attributes are removed, all of them. So are those that the table does not list: unknown
    ones, overlays, curves, and texts, names and days but for a few that are needed.
    """
    if element.tag.is_private or element.tag.group & _REPEATING in (_CURVES, _OVERLAYS):
        return Action.REMOVE
    single, groups = _actions()
    if element.tag in single:
        return single[element.tag]
    for group, number, group_mask, number_mask, action in groups:
        if (element.tag.group & group_mask, element.tag.element & number_mask) == (group, number):
            return action
    return _unlisted(element)


def _unlisted(element: DataElement) -> Action | None:
    if not dictionary_has_tag(element.tag):
        return Action.REMOVE
    # A file may call a text what is none, and the other way round.
    kinds = {element.VR, *dictionary_VR(element.tag).split(" or ")}
    if "UI" in kinds:
        return Action.RENAME if _is_of_file(element) else None
    if element.keyword in _WRITTEN:
        return _WRITTEN[element.keyword]
    return Action.REMOVE if kinds & _FREE and element.keyword not in _NEEDED else None


def _is_of_file(element: DataElement) -> bool:
    """Return whether a UID is one of an instance; classes may be a vendor's own."""
    values = element.value if isinstance(element.value, list | MultiValue) else [element.value]
    told = [str(value) for value in values if value]
    return not element.keyword.endswith("ClassUID") and any(
        not uid.startswith(_STANDARD) for uid in told
    )
