"""What the processes of the centre share among themselves: the inner door and its secret."""

import secrets
from pathlib import Path

from common.secret_files import replace_file

INNER_HOST = "127.0.0.1"


def superexec_secret(home: Path) -> Path:
    """Return the file of the secret that the SuperExec shows; made at its first use."""
    path = home / "server" / "superexec.secret"
    if not path.exists():
        replace_file(path, secrets.token_hex(32).encode())
    return path
