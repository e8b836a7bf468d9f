"""Locks on files: given back when their holder ends, killed or not."""

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

POLL_S = 0.1
LOOKED_AT_S = 2.0
"""Who asks `is_held` holds the lock for an instant: wait so long for it."""


class HeldError(ValueError):
    """Another process holds the lock."""


@contextmanager
def held(path: Path, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file, made if it is not there.

    what: what one process alone may do, for the error.

    Raises:
        HeldError: another process holds it and has not given it back within wait_s.
    """
    deadline = time.monotonic() + wait_s
    with _opened(path) as descriptor:
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise HeldError(f"{path}: another process {what}; wait until it has ended")
            time.sleep(POLL_S)
        yield


def waited_for(path: Path) -> AbstractContextManager[None]:
    """Hold a lock file for a short change; others wait for it."""
    return held(path, "changes it", math.inf)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file."""
    with _opened(path) as descriptor:
        return not _taken(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
