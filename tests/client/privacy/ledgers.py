"""Small ledgers for tests, and a hand that changes them behind their back."""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from client.privacy.data_set import DataSet
from client.privacy.ledger import Ledger
from common.accounting import PrivateSteps

STEPS = PrivateSteps(noise_multiplier=1.0, sample_rate=0.1, steps=5)


def data_set(name: str = "a", patients: Iterable[str] = ("p0", "p1", "p2")) -> DataSet:
    """Return a data set of that name and those patients."""
    fingerprint = hashlib.sha256(name.encode()).hexdigest()
    return DataSet(fingerprint=fingerprint, patients=frozenset(patients))


def charged(folder: Path, charges: int = 3) -> Ledger:
    """Return a new ledger with so many charges of two studies."""
    ledger = Ledger.open(folder, data_set())
    for number in range(charges):
        ledger.charge(f"release-{number}", f"study-{number % 2}", STEPS, "training")
    return ledger


def tampered(path: Path, *statements: str) -> None:
    """Change a ledger as one would who drops its triggers and puts them back."""
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        triggers = database.execute(query).fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
        for _, sql in triggers:
            database.execute(sql)
        database.commit()


def values(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows as they stand in the file."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM rows ORDER BY seq").fetchall()
