"""Who may enter the centre's page: a file of names and hashes of passwords, and no default.

    page/people.json   0600; by name: the salt and the hash

A hash is scrypt's (RFC 7914) with N = 2^15, r = 8, p = 3, as OWASP's Password Storage Cheat Sheet
has it: 32 MiB and about a quarter of a second for each guess.
"""

import json
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from common.secret_files import private_folder, replace_file
from server.federation.home import Home

FOLDER, FILE = "page", "people.json"
LEAST, MOST = 12, 1024
"""Letters of a password."""
SALT_BYTES, HASH_BYTES = 16, 32
COST, BLOCK, PARALLEL = 2**15, 8, 3
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


class PasswordError(ValueError):
    """A name or a password that cannot be; the text says why and what would do."""


def set_password(home: Home, name: str, password: str) -> None:
    """Let a person enter with a password; an earlier one, and who is in by it, counts no more.

    Raises:
        PasswordError: the name or the password is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise PasswordError(
            f"name={name!r} is not allowed; give up to 32 of a-z, 0-9 and . _ -, the first a "
            "letter or a digit"
        )
    if not LEAST <= len(password) <= MOST:
        raise PasswordError(
            f"the password has {len(password)} characters; give between {LEAST} and {MOST}, as "
            "four words that do not belong together"
        )
    salt = secrets.token_bytes(SALT_BYTES)
    kept = {"salt": _told(salt), "hash": _told(_kdf(salt).derive(password.encode()))}
    _change(home, name, kept)


def remove_person(home: Home, name: str) -> None:
    """Let a person enter no more; who is in is out at once.

    Raises:
        PasswordError: there is no such person.
    """
    if name not in people(home.path):
        known = ", ".join(people(home.path)) or "nobody"
        raise PasswordError(f"{name!r} has no password here; those who have: {known}")
    _change(home, name, None)


def people(home: Path) -> list[str]:
    """Return who may enter."""
    return sorted(_read(home))


@dataclass
class People:
    """The marks of who may enter, read again when the file has changed."""

    home: Path
    _stamp: tuple[int, int] = (0, 0)
    _known: dict[str, dict[str, str]] = field(default_factory=dict)

    def mark(self, name: str) -> str | None:
        """Return what changes with a person's password; None for who may not enter."""
        try:
            about = (self.home / FOLDER / FILE).stat()
        except FileNotFoundError:
            return None
        stamp = (about.st_ino, about.st_mtime_ns)
        if stamp != self._stamp:
            self._known, self._stamp = _read(self.home), stamp
        kept = self._known.get(name)
        return None if kept is None else kept["salt"]


def is_password(home: Path, name: str, password: str) -> bool:
    """Whether it is this person's password; it takes as long for somebody who is not known."""
    kept = _read(home).get(name)
    salt = b64decode(kept["salt"]) if kept else bytes(SALT_BYTES)
    expected = b64decode(kept["hash"]) if kept else bytes(HASH_BYTES)
    try:
        _kdf(salt).verify(password[:MOST].encode(), expected)
    except InvalidKey:
        return False
    return kept is not None


def _kdf(salt: bytes) -> Scrypt:
    return Scrypt(salt=salt, length=HASH_BYTES, n=COST, r=BLOCK, p=PARALLEL)


def _change(home: Home, name: str, kept: dict[str, str] | None) -> None:
    private_folder(home.path / FOLDER)
    with home.changing():
        others = {known: of for known, of in _read(home.path).items() if known != name}
        found = others if kept is None else {**others, name: kept}
        text = json.dumps(found, indent=2, sort_keys=True)
        replace_file(home.path / FOLDER / FILE, text.encode())


def _read(home: Path) -> dict[str, dict[str, str]]:
    path = home / FOLDER / FILE
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _told(raw: bytes) -> str:
    return b64encode(raw).decode()
