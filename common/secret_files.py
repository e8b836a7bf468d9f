"""Files that are whole or absent, that their owner alone may read. Imports no torch.

Each version of a file has a later time of change than the one before, to the nanosecond, also when
the clock was set back: whoever reads may tell two versions apart by (inode, time, size).
"""

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from common.durable import sync

PRIVATE, PUBLIC = 0o600, 0o644
_PRIVATE_FOLDER = 0o700
_OTHERS = 0o077
"""Rights of the group and of all."""


def replace_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename, fsync of the folder.

    Two writers of one file must hold one lock. A kill leaves at most a temporary file, whose name
    begins with a dot and which the next write takes away.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write_new(temporary, content, mode)
    newest = time.time_ns()
    with suppress(FileNotFoundError):
        newest = max(newest, path.stat().st_mtime_ns + 1)
    os.utime(temporary, ns=(newest, newest))
    temporary.replace(path)
    sync_folder(path.parent)


def write_new(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write and fsync a file that is not there yet.

    Raises:
        FileExistsError: it is; a secret must not land in a file that another user made.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        sync(file.fileno())


def secret_key(path: Path, length: int) -> bytes:
    """Return a secret of so many bytes, made at its first use; readable by its owner alone.

    Of several that come first at once, one makes it, and all return that one.

    Raises:
        ValueError: the file holds another number of bytes, or others may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        made = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        write_new(made, secrets.token_bytes(length))
        try:
            # A link is whole, or there was one before.
            with suppress(FileExistsError):
                path.hardlink_to(made)
        finally:
            made.unlink()
        sync_folder(path.parent)
    key = path.read_bytes()
    if len(key) != length:
        raise ValueError(f"{path} holds {len(key)} bytes, a key has {length}; restore it")
    if path.stat().st_mode & _OTHERS:
        raise ValueError(f"{path} is a secret that others may read; chmod 600 it")
    return key


def sync_folder(folder: Path) -> None:
    """Make new names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone may enter; one that is there stays as it is."""
    path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
