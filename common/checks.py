"""Validators of settings, with one form of message: the name, the value, what is allowed."""

import re
from collections.abc import Collection

LONGEST_NAME = 200


def positive(**values: float) -> None:
    """Raise ValueError unless each value is greater than zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value} is not allowed; give a value greater than 0")


def not_negative(**values: float) -> None:
    """Raise ValueError unless each value is zero or greater."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name}={value} is not allowed; give 0 or more")


def in_range(low: float, high: float, /, **values: float) -> None:
    """Raise ValueError unless low <= value <= high for each value."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name}={value} is not allowed; give a value from {low} to {high}")


def one_of(choices: Collection[object], /, **values: object) -> None:
    """Raise ValueError unless each value is one of the choices."""
    for name, value in values.items():
        if value not in choices:
            allowed = ", ".join(str(choice) for choice in choices)
            raise ValueError(f"{name}={value!r} is not known; choose one of: {allowed}")


def fit_for_a_folder(**values: str) -> None:
    """Raise ValueError unless each value is a name that folders and files may be called by."""
    for name, value in values.items():
        if len(value) > LONGEST_NAME or not re.fullmatch(r"[\w-][\w.-]*", value):
            raise ValueError(
                f"{name}={value!r} is not allowed: folders are called by it; give up to "
                f"{LONGEST_NAME} letters, digits and . _ -, the first no dot"
            )
