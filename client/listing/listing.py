"""What a folder holds, and which of several masks is an image's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from client.manifest import Row

WAY_OUT = "say which with mask: PATTERN in a mapping file (--mapping FILE), or keep one of them"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a folder holds."""

    rows: Sequence[Row]
    unsorted: Mapping[Path, int] = field(default_factory=dict)
    """Folders in which, or below which, several DICOM series lie together, and how many."""
    others: int = 0
    """DICOM files that hold neither an image nor labels; they are no rows."""
    several: Mapping[Path, Sequence[Path]] = field(default_factory=dict)
    """By image its masks, where the pattern leaves several; its row has none."""


def fitting(masks: Sequence[Path], pattern: str) -> list[Path]:
    """Return the masks whose file names fit a pattern; capitals do not count."""
    return [mask for mask in masks if fnmatchcase(mask.name.lower(), pattern.lower())]
