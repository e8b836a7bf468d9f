"""An error of the system as a person reads it: the file or folder, the reason, the way out."""

import errno
import os
from pathlib import Path

_RIGHTS = "give this user the right to it (chown, chmod), or name another place"
_ROOM = "make room there, or name another place"
_WAYS_OUT = {
    errno.ENOENT: "correct the path",
    errno.ENOTDIR: "correct the path: a file stands where a folder is named",
    errno.EISDIR: "correct the path: a folder stands where a file is named",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
}


def words_of(error: OSError) -> str:
    """Return one line without a number; what has neither number nor file tells itself."""
    if error.errno is None or error.filename is None:
        return str(error)
    path = Path(os.fsdecode(error.filename))
    # Nobody named the temporary file, but the folder that it was to lie in.
    is_temporary = path.name.startswith(".") and path.suffix == ".tmp"
    reason = (error.strerror or "it cannot be used").lower()
    way_out = _WAYS_OUT.get(error.errno)
    told = f"{path.parent if is_temporary else path}: {reason}"
    return f"{told}; {way_out}" if way_out else told


def reason_of(error: Exception) -> str:
    """Return why, for a message that names the file itself: no number, and no second path."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


def check_writable(folder: Path) -> None:
    """See that a file can be made in a folder, before work is done for it.

    Of a folder that is not there yet, the nearest above it that is there counts.

    Raises:
        OSError: it cannot.
    """
    folder = folder.absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
