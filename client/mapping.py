"""A site's own names of sequences and labels, and what a study calls them: a YAML file of the site.

sequences: {"t1_mprage*": t1, "*flair*": flair}
labels: {GTV: 1, Heart: 2, 255: 1}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from common.schema import SettingsError

_KEYS = ("sequences", "labels")


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a study calls a site's sequences and labels."""

    sequences: Mapping[str, str] = field(default_factory=dict)
    """By a pattern of the site's name, where * stands for anything; the first that fits counts, and
    capitals do not. Empty: names stay as they are."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """By the site's name or value of a label, the study's value, 0 for background; capitals do not
    count. Empty: values stay as they are."""

    def sequence(self, own: str) -> str | None:
        """Return what the study calls a sequence; None where no pattern fits."""
        for pattern, name in self.sequences.items():
            if fnmatchcase(own.lower(), pattern.lower()):
                return name
        return None

    def label(self, own: str) -> int | None:
        """Return the study's value of a label; None where it is not listed."""
        return self.labels.get(own.strip().lower())


def load_names(path: Path) -> Names:
    """Return the names in a mapping file.

    Raises:
        SettingsError: it cannot be read, has other keys, or maps to what is no name or value.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as a mapping file: {error}") from error
    if not isinstance(values, dict) or set(values) - set(_KEYS):
        raise SettingsError(f"{path} is no mapping file; it may have {' and '.join(_KEYS)}")
    sequences, labels = (_part(path, values, key) for key in _KEYS)
    if not all(isinstance(name, str) and name for name in sequences.values()):
        raise SettingsError(f"{path}: sequences must map names of this site to names")
    if not all(type(value) is int and value >= 0 for value in labels.values()):
        raise SettingsError(f"{path}: labels must map names or values to whole numbers, 0 or more")
    return Names(
        sequences={str(own): name for own, name in sequences.items()},
        labels={str(own).strip().lower(): value for own, value in labels.items()},
    )


def _part(path: Path, values: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    part = values.get(key) or {}
    if not isinstance(part, dict):
        raise SettingsError(f"{path}: {key} must be pairs of a name of this site and the study's")
    return part
