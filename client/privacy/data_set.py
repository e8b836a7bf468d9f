"""What makes two data sets the same to the ledger: their patients, files and labels.

Nothing heavy is imported: a process that only keeps the ledger starts at once.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.content import digest_of

if TYPE_CHECKING:
    from client.manifest import Row


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A site's data as the ledger knows it."""

    fingerprint: str
    """SHA-256 over all rows of the manifest, 64 hexadecimal digits."""
    patients: frozenset[str]
    """The patients in clear: they never leave the process, and the ledger keeps salted hashes."""

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 64 or set(self.fingerprint) - set("0123456789abcdef"):
            raise ValueError(
                f"fingerprint={self.fingerprint!r} is not a SHA-256; take it from data_set_of"
            )
        if not self.patients:
            raise ValueError("a data set without patients has no ledger; list at least one image")


def data_set_of(rows: Iterable["Row"]) -> DataSet:
    """Return the data set of all rows of a manifest, both sides of the split.

    The fingerprint is SHA-256 over the sorted (patient, SHA-256 of image, SHA-256 of mask, label,
    and of other sequences whose files are there: a cell of image_quality names none).
    It depends neither on the order of rows, nor on names and places of files, nor on what a study
    makes of them. Files are read in pieces. One that cannot be read counts as such: whether a
    study goes on without it is for data.on_bad_file to say.

    Raises:
        ValueError: there are no rows.
    """
    # Several rows may share a file, such as a volume with a mask for each structure.
    digests: dict[Path, str] = {}
    entries = []
    patients = set()
    for row in rows:
        there = sorted((name, file) for name, file in row.sequences.items() if file.exists())
        mask_file = [] if row.mask is None else [row.mask]
        for file in (row.image, *mask_file, *(file for _, file in there)):
            if file not in digests:
                digests[file] = digest_of(file)
        mask = None if row.mask is None else digests[row.mask]
        # Without other sequences as it was before there were any: ledgers live longer.
        more = [[name, digests[file]] for name, file in there]
        entry = [row.patient, digests[row.image], mask, row.label, *([more] if more else [])]
        entries.append(json.dumps(entry))
        patients.add(row.patient)
    total = hashlib.sha256("\n".join(sorted(entries)).encode())
    return DataSet(fingerprint=total.hexdigest(), patients=frozenset(patients))
