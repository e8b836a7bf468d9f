"""The Basic Application Level Confidentiality Profile: what is to happen to which attribute.

DICOM PS3.15 2026c, table E.1-1, as the library dicom-anonymizer has it.
"""

import functools
from collections.abc import Mapping
from enum import StrEnum

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import DataElement
from pydicom.tag import BaseTag, Tag

EDITION = "DICOM PS3.15 2026c, table E.1-1"


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

    Private attributes are removed, all of them.
    """
    if element.tag.is_private:
        return Action.REMOVE
    single, groups = _actions()
    if element.tag in single:
        return single[element.tag]
    for group, number, group_mask, number_mask, action in groups:
        if (element.tag.group & group_mask, element.tag.element & number_mask) == (group, number):
            return action
    return None
