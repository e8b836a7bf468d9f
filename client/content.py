"""What a row's path stands for on disk: a file, or a folder with the files of one series."""

import hashlib
from pathlib import Path

_UNREADABLE = "unreadable"


def files_of(path: Path) -> list[Path]:
    """Return the file, or the files of a folder and its sub-folders, sorted; hidden ones not."""
    if not path.is_dir():
        return [path]
    visible = (entry for entry in path.iterdir() if not entry.name.startswith("."))
    return sorted(file for entry in visible for file in files_of(entry))


def digest_of(path: Path) -> str:
    """Return SHA-256 of a file's bytes, or of the sorted digests of what a folder holds.

    Neither names nor the order of files count. One that cannot be read counts as such.
    """
    try:
        if path.is_dir():
            visible = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
            parts = sorted(digest_of(entry) for entry in visible)
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return _UNREADABLE
