"""What files outlive: a power cut, or in a simulation the end of their process alone.

A hospital's ledger is on the disk before an update leaves. A virtual one protects nobody, and to
wait for the disk five times a round was a fifth of a short round's time. A kill loses nothing
either way: what a process has written is the operating system's.

A hospital keeps its last answer, so that whoever asks again costs no epsilon and no hours. A
virtual one keeps it, whole, where the next round needs something of it or it took long; a short one
it makes again, for the same charge and on a CPU to the same bytes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DURABLE: ContextVar[bool] = ContextVar("outlives a power cut", default=True)


@contextmanager
def simulated() -> Iterator[None]:
    """Do not wait for the disk in this block: what it writes is of a virtual hospital."""
    token = _DURABLE.set(False)
    try:
        yield
    finally:
        _DURABLE.reset(token)


def is_durable() -> bool:
    """Return whether what is written now must outlive a power cut."""
    return _DURABLE.get()


def sync(descriptor: int) -> None:
    """Return when what was written to a file or folder outlives what it must."""
    if is_durable():
        os.fsync(descriptor)
