"""A site's own names of sequences and labels, and what a study calls them: a YAML file.

sequences: {"t1_mprage*": t1, "*flair*": flair}
labels: {GTV: 1, Heart: 2, 255: 1}
classes: {Pneumonie: pneumonia}
mask: "*_lesion_mask*"
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from common.schema import SettingsError
from common.system_errors import reason_of

_MASK = "mask"
_KEYS = ("sequences", "labels", "classes")


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a study calls a site's sequences and labels."""

    sequences: Mapping[str, str] = field(default_factory=dict)
    """By a pattern of the site's name, where * stands for anything; the first that fits counts, and
    capitals do not. Empty: names stay as they are."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """By the site's name or value of a label, the study's value, 0 for background; capitals do not
    count. Empty: values stay as they are."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """By the site's class of an image, the study's. Empty: classes stay as they are."""
    mask: str = "*"
    """Pattern of the file names of masks, where an image has several."""

    def sequence(self, own: str) -> str | None:
        """Return what the study calls a sequence; None where no pattern fits."""
        for pattern, name in self.sequences.items():
            if fnmatchcase(own.lower(), pattern.lower()):
                return name
        return None

    def label(self, own: str) -> int | None:
        """Return the study's value of a label; None where it is not listed."""
        return self.labels.get(own.strip().lower())

    def class_of(self, own: str) -> str:
        """Return what the study calls a class.

        Raises:
            ValueError: it is not listed.
        """
        if own not in self.classes:
            raise ValueError(f"the class {own!r} is not in the mapping file; add it under classes")
        return self.classes[own]


def load_names(path: Path) -> Names:
    """Return the names in a mapping file.

    Raises:
        SettingsError: it cannot be read, has other keys, or maps to what is no name or value.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} cannot be read as a mapping file: {reason_of(error)}; name another "
            "with --mapping"
        ) from error
    if not isinstance(values, dict) or set(values) - {*_KEYS, _MASK}:
        raise SettingsError(f"{path} is no mapping file; it may have {', '.join(_KEYS)}, {_MASK}")
    sequences, labels, classes = (_part(path, values, key) for key in _KEYS)
    if not all(isinstance(n, str) and n for n in [*sequences.values(), *classes.values()]):
        raise SettingsError(f"{path}: sequences and classes must map this site's names to names")
    if not all(type(value) is int and value >= 0 for value in labels.values()):
        raise SettingsError(f"{path}: labels must map names or values to whole numbers, 0 or more")
    _check_apart(path, labels)
    return Names(
        sequences={str(own): name for own, name in sequences.items()},
        labels={str(own).strip().lower(): value for own, value in labels.items()},
        classes={str(own): name for own, name in classes.items()},
        mask=str(values.get(_MASK, "*")),
    )


def _check_apart(path: Path, labels: Mapping[Any, Any]) -> None:
    """Raise SettingsError where two keys are one name, since capitals do not count."""
    seen: dict[str, Any] = {}
    for own, value in labels.items():
        if seen.setdefault(str(own).strip().lower(), value) != value:
            raise SettingsError(
                f"{path}: labels has {own!r} twice, with several values, and capitals do not "
                "count; keep one of them"
            )


def _part(path: Path, values: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    part = values.get(key) or {}
    if not isinstance(part, dict):
        raise SettingsError(f"{path}: {key} must be pairs of a name of this site and the study's")
    return part
