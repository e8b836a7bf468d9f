"""The Unix socket that a trainer listens on: who may reach it, and that there is one trainer."""

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

LONGEST_PATH_BYTES = 107
"""What Linux holds of a Unix socket's path."""
SOCKET_MODE, FOLDER_MODE = 0o660, 0o750
_OTHERS = 0o007


class ListeningError(ValueError):
    """A socket that this trainer cannot or may not listen on."""


@contextmanager
def listening(path: Path, bind: Callable[[str], object]) -> Iterator[None]:
    """Call bind with the socket's address, and hold the socket until the block ends.

    Its owner and group alone may connect. What a killed trainer left behind is replaced.

    Raises:
        ListeningError: another trainer listens, others may enter the folder, the path is too long
            or something else lies there.
    """
    if len(os.fsencode(path.absolute())) > LONGEST_PATH_BYTES:
        raise ListeningError(
            f"{path}: a Unix socket's path has {LONGEST_PATH_BYTES} bytes at most; set socket in "
            "site.yaml to a shorter one"
        )
    _private_folder(path.parent)
    lock = path.with_name(f"{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _only_one(path, descriptor)
        _make_room(path)
        # Between the making of the socket and a chmod anybody could connect.
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            bind(f"unix:{path.absolute()}")
        finally:
            os.umask(before)
        path.chmod(SOCKET_MODE)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _private_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(FOLDER_MODE)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & _OTHERS:
        raise ListeningError(
            f"{folder} has mode {mode:04o}, so every user of this machine may enter it and reach "
            f"the trainer; chmod o-rwx {folder}, or set socket in site.yaml to another folder"
        )


def _only_one(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ListeningError(
            f"{path}: another trainer listens here; stop it first, or give this one a socket of "
            "its own in site.yaml"
        ) from error


def _make_room(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListeningError(f"{path} is no socket; move it away, or set another in site.yaml")
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ListeningError(f"{path}: another program listens here; stop it, or set another socket")
