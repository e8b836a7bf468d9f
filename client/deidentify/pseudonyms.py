"""Pseudonyms by a keyed hash: the same person gets the same one, and who lacks the key learns none.

HMAC-SHA256 (RFC 2104). A plain hash of a patient's number would not do: numbers can be tried out.
"""

import hashlib
import hmac
from pathlib import Path

from common.secret_files import private_folder, secret_key

KEY = "pseudonyms.key"
KEY_BYTES = 32
_DIGITS = 16
"""Hexadecimal, 64 bits: two of a million patients share one with a chance below 1 in 10 million."""
_UID_ROOT = "2.25."
"""Of UIDs made from a 128-bit number (PS3.5, B.2)."""


class Pseudonyms:
    """The names that a site gives to patients and UIDs."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def patient(self, number: str) -> str:
        """Return the pseudonym of a patient's number."""
        return f"P-{self._digest('patient', number.strip())[:_DIGITS]}"

    def uid(self, uid: str) -> str:
        """Return the UID that takes the place of another."""
        return f"{_UID_ROOT}{int(self._digest('uid', uid.strip())[:32], 16)}"

    def _digest(self, kind: str, text: str) -> str:
        return hmac.new(self._key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()


def pseudonyms_of(state: Path) -> Pseudonyms:
    """Return the pseudonyms of a site, by a key in its state folder that is made at its first use.

    Without the key the same patient gets another pseudonym: it belongs into the site's backup, and
    to nobody else.
    """
    private_folder(state)
    return Pseudonyms(secret_key(state / KEY, KEY_BYTES))
