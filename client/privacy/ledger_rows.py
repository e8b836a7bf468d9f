"""The rows of a ledger of privacy and the chain of hashes that binds them; no file is touched.

hash = SHA-256(previous | seq | time | kind | body). What may not leave the site (the salt and the
salted hashes of patients) stands in `secret`; the body holds its SHA-256, so that rows without
their secrets can be handed out and the chain still checked.
"""

import hashlib
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any

from common.checks import in_range, not_negative, one_of, positive

GENESIS, DATA, CHARGE = "genesis", "data", "charge"
PURPOSES = ("training", "evaluation", "statistics", "profile")
NO_HASH = "0" * 64
"""Stands before the first row."""


class LedgerError(ValueError):
    """A ledger that may not be used; the text names the file, the reason and the way out."""


class LedgerBusyError(LedgerError):
    """Another trainer works with the data set; nothing is wrong with the ledger."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as it stands in the file."""

    seq: int
    """1, 2, 3 ..."""
    time: str
    """UTC, ISO 8601."""
    kind: str
    """genesis, data or charge."""
    body: str
    """Canonical JSON."""
    secret: str
    """Canonical JSON that never leaves the site; empty in a charge."""
    previous: str
    """Hash of the row before."""
    hash: str
    """Hash of this row."""

    def __post_init__(self) -> None:
        # SQLite keeps any type in any column.
        texts = (self.time, self.kind, self.body, self.secret, self.previous, self.hash)
        if type(self.seq) is not int or not all(type(text) is str for text in texts):
            raise ValueError("it holds a value of another type")

    def fields(self) -> dict[str, Any]:
        """Return the body as a dictionary."""
        return dict(json.loads(self.body))


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What one release cost: the body of a row of that kind."""

    release: str
    """Key of the update, the estimate or the statistic that leaves."""
    study: str
    """Digest of the study."""
    purpose: str
    """training, evaluation, statistics or profile."""
    noise_multiplier: float
    """Standard deviation of the noise over the largest contribution of one patient; 0: none, for
    an update that left without privacy."""
    sample_rate: float
    """Chance of a patient to be in a step."""
    steps: int
    """Steps of this kind."""

    def __post_init__(self) -> None:
        one_of(PURPOSES, purpose=self.purpose)
        for name in ("release", "study"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed; give its key")
        # With a noise of NaN the accountant would never end, with infinite noise nothing is spent.
        if not math.isfinite(self.noise_multiplier):
            raise ValueError(
                f"noise_multiplier={self.noise_multiplier} is not allowed; give a finite number"
            )
        not_negative(noise_multiplier=self.noise_multiplier)
        positive(steps=operator.index(self.steps))
        in_range(0.0, 1.0, sample_rate=self.sample_rate)


def canonical(value: Mapping[str, Any]) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def row_hash(row: Row | Mapping[str, Any], body: str) -> str:
    """Return SHA-256(previous | seq | time | kind | body) in hexadecimal digits."""
    at = vars(row) if isinstance(row, Row) else row
    parts = (at["previous"], str(at["seq"]), at["time"], at["kind"], body)
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def patient_hash(salt: str, patient: str) -> str:
    """Return SHA-256(salt | patient) in hexadecimal digits."""
    return hashlib.sha256(f"{salt}|{patient}".encode()).hexdigest()


def next_row(
    newest: Row | None,
    time: datetime,
    kind: str,
    fields: Mapping[str, Any],
    secret: Mapping[str, Any] | None = None,
) -> Row:
    """Return the row that follows the newest, hashed; None begins a chain.

    secret: what may not leave the site; the body gets its SHA-256.
    """
    kept = "" if secret is None else canonical(secret)
    body = canonical(fields if secret is None else {**fields, "secret": _sha256(kept)})
    row: dict[str, Any] = {
        "seq": 1 if newest is None else newest.seq + 1,
        "time": time.isoformat(timespec="microseconds"),
        "kind": kind,
        "previous": NO_HASH if newest is None else newest.hash,
    }
    return Row(**row, body=body, secret=kept, hash=row_hash(row, body))


@dataclass(frozen=True)
class Chain:
    """All rows of a ledger, oldest first; what is not one whole chain is refused.

    Raises:
        ValueError: a row was changed, removed or put in another place; the text names the row.
    """

    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("it has no rows")
        previous = NO_HASH
        for seq, row in enumerate(self.rows, start=1):
            _check_row(row, seq, previous)
            previous = row.hash
        for older, newer in pairwise(self.rows):
            if _time(newer) < _time(older):
                raise ValueError(f"row {newer.seq} is older than the row before it")
        # Read once here, so that a forged body is refused with the chain.
        _ = self.patients, self.charges, self.fingerprint

    @property
    def newest(self) -> Row:
        """The last row."""
        return self.rows[-1]

    @property
    def newest_time(self) -> datetime:
        """When the last row was written, UTC."""
        return _time(self.newest)

    @property
    def first_fingerprint(self) -> str:
        """Fingerprint of the data set that the ledger was begun for."""
        return str(self.rows[0].fields()["fingerprint"])

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the data set as it was last seen."""
        seen = [row for row in self.rows if row.kind != CHARGE]
        return str(seen[-1].fields()["fingerprint"])

    @cached_property
    def patients(self) -> frozenset[str]:
        """Salted hashes of all patients that ever were in the data set."""
        kept = [json.loads(row.secret)["patients"] for row in self.rows if row.kind != CHARGE]
        return frozenset(str(patient) for patients in kept for patient in patients)

    @cached_property
    def charges(self) -> dict[str, Charge]:
        """The charges by their release, oldest first."""
        charges = (Charge(**row.fields()) for row in self.rows if row.kind == CHARGE)
        return {charge.release: charge for charge in charges}

    def hashes_of(self, patients: Iterable[str]) -> frozenset[str]:
        """Return the patients as this ledger writes them."""
        salt = str(json.loads(self.rows[0].secret)["salt"])
        return frozenset(patient_hash(salt, patient) for patient in patients)


def check_links(rows: Sequence[Mapping[str, Any]]) -> None:
    """Check a chain of rows without secrets, whose bodies are dictionaries: an export's.

    Raises:
        ValueError: a row was changed, removed or put in another place.
    """
    previous = NO_HASH
    for seq, row in enumerate(rows, start=1):
        whole = row["hash"] == row_hash(row, canonical(row["body"]))
        if row["seq"] != seq or row["previous"] != previous or not whole:
            raise ValueError(f"row {seq} was changed, removed or moved")
        previous = row["hash"]


def _check_row(row: Row, seq: int, previous: str) -> None:
    if row.seq != seq or row.previous != previous:
        raise ValueError(f"row {seq} is missing or in another place")
    if row.hash != row_hash(row, row.body):
        raise ValueError(f"row {seq} was changed")
    one_of((GENESIS,) if seq == 1 else (DATA, CHARGE), **{f"kind of row {seq}": row.kind})
    if row.secret and row.fields().get("secret") != _sha256(row.secret):
        raise ValueError(f"the patients of row {seq} were changed")
    if bool(row.secret) == (row.kind == CHARGE):
        raise ValueError(f"row {seq} was changed: its patients are missing, or where none belong")


def _time(row: Row) -> datetime:
    time = datetime.fromisoformat(row.time)
    if time.utcoffset() != timedelta(0):
        raise ValueError(f"the time of row {row.seq}, {row.time}, is not in UTC")
    return time


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
