"""What a row's path stands for on disk: a file, or a folder with the files of one series."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

_UNREADABLE = "unreadable"


def files_of(path: Path) -> list[Path]:
    """Return the file, or the files of a folder and its sub-folders, sorted; hidden ones not.

    Links are followed, since data often lies on another disc; each folder is gone through once.
    Pipes and devices are no files.
    """
    return sorted(_files_of(path, set())) if path.is_dir() else [path]


def _files_of(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files_of(entry, seen)
        # A link to nothing is told by who reads it.
        elif entry.is_file() or not entry.exists():
            yield entry


def digest_of(path: Path) -> str:
    """Return SHA-256 of a file's bytes, or of the sorted digests of what a folder holds.

    Neither names nor the order of files count. One that cannot be read counts as such, and so does
    a link to a folder that it lies in.
    """
    return _digest_of(path, ())


def _digest_of(path: Path, above: tuple[Path, ...]) -> str:
    try:
        if path.is_dir():
            real = path.resolve()
            if real in above:
                return _UNREADABLE
            visible = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
            parts = sorted(_digest_of(entry, (*above, real)) for entry in visible)
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()
        if not path.is_file():
            return _UNREADABLE
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return _UNREADABLE
