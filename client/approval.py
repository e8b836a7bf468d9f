"""Which studies a site has been asked for, and what its data officer says of each.

One SQLite file below the state folder. What the trainer is asked for and may not run is written
down as proposed; a person approves or rejects it (client/cli_studies.py).
"""

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from json import dumps, loads
from pathlib import Path
from typing import Any

from client.privacy.policy import Policy
from common.contract import RefusalError
from common.secret_files import sync_folder

FOLDER, FILE = "studies", "studies.db"
PROPOSED, APPROVED, REJECTED = "proposed", "approved", "rejected"
MOST_UNANSWERED = 100
"""Most proposals that nobody has answered; a server cannot fill the disk with more."""
MOST_OVERRIDES_BYTES = 64_000
FEWEST_DIGITS = 16
"""Digits of a digest that a person must give."""
_WAIT_S = 30.0
_SEEN_AGAIN = timedelta(minutes=1)
"""A study that is asked for each second is written down once in this time."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, overrides TEXT NOT NULL, status TEXT NOT NULL,
    first_seen TEXT, last_asked TEXT, decided_by TEXT, decided TEXT
)
"""
_COLUMNS = "digest, name, overrides, status, first_seen, last_asked, decided_by, decided"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One study, as the site knows it. Times are ISO 8601 in UTC."""

    digest: str
    name: str
    """Of the study, as the server gave it; empty where it was answered before it was asked for."""
    overrides: tuple[str, ...]
    """What describes it."""
    status: str
    """proposed, approved or rejected."""
    first_seen: str | None
    """When it was first asked for; None: not yet."""
    last_asked: str | None
    """When it was asked for last, to the minute; None: not yet."""
    decided_by: str | None
    """Who approved or rejected it; None: nobody has."""
    decided: str | None
    """When that was."""


class ApprovalError(ValueError):
    """An answer that cannot be given; the text says why and what would do."""


@dataclass(frozen=True)
class Approvals:
    """The studies of one site, below its state folder."""

    state: Path

    @property
    def path(self) -> Path:
        """Where they are written down."""
        return self.state / FOLDER / FILE

    def all(self) -> list[Proposal]:
        """Return every study that was asked for or answered, the newest first."""
        if not self.path.exists():
            return []
        with self._opened() as database:
            order = "coalesce(last_asked, decided) DESC, digest"
            found = database.execute(f"SELECT {_COLUMNS} FROM studies ORDER BY {order}")
            return [_proposal(row) for row in found]

    def status(self, digest: str) -> str | None:
        """Return what is known of a study: proposed, approved, rejected, or None."""
        if not self.path.exists():
            return None
        with self._opened() as database:
            row = _row(database, digest)
        return None if row is None else row.status

    def propose(self, digest: str, name: str, overrides: Sequence[str], now: datetime) -> str:
        """Write down that a study was asked for, and return its status."""
        with self._opened() as database:
            known = _row(database, digest)
            if known is not None and known.last_asked is not None:
                if now - datetime.fromisoformat(known.last_asked) > _SEEN_AGAIN:
                    query = "UPDATE studies SET last_asked = ? WHERE digest = ?"
                    database.execute(query, (_told(now), digest))
                return known.status
            status = PROPOSED if known is None else known.status
            by, at = (None, None) if known is None else (known.decided_by, known.decided)
            row = (digest, name, dumps(list(overrides)), status, _told(now), _told(now), by, at)
            _put(database, row)
            _drop_oldest(database)
        return status

    def answer(self, words: str, status: str, who: str, now: datetime) -> Proposal:
        """Approve or reject a study, and return it.

        words: its digest, or the first digits of it, 8 at least. All 64 digits answer a study that
        was never asked for.

        Raises:
            ApprovalError: no digits, too few, or those of no study or of several.
        """
        digits = words.strip().lower()
        if not re.fullmatch(rf"[0-9a-f]{{{FEWEST_DIGITS},64}}", digits):
            raise ApprovalError(
                f"{words!r} is no study's digest; give its first {FEWEST_DIGITS} hexadecimal "
                "digits or more, as `wardround-site studies` shows them"
            )
        with self._opened() as database:
            found = [row for row in _rows(database) if row.digest.startswith(digits)]
            if len(found) > 1:
                names = ", ".join(sorted(row.digest[:24] for row in found))
                raise ApprovalError(f"{words} may be {names}: give more digits")
            if not found and len(digits) < 64:
                raise ApprovalError(
                    f"no study that begins with {words} was proposed here; `wardround-site "
                    "studies` lists them, and all 64 digits answer one beforehand"
                )
            before = found[0] if found else _unseen(digits)
            seen = (before.first_seen, before.last_asked)
            asked = (before.digest, before.name, dumps(list(before.overrides)))
            _put(database, (*asked, status, *seen, who, _told(now)))
            answered = _row(database, before.digest)
        assert answered is not None  # it was just put there
        return answered

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Give the table; all that is done to it is on the disk at the end, or nothing is."""
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Made before SQLite opens it: its own way would let others read it.
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
                sync_folder(self.path.parent)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as database, database:
                database.execute("PRAGMA synchronous=EXTRA")
                # The trainer and a person may both be here: nobody reads what another is changing.
                database.execute("BEGIN IMMEDIATE")
                database.execute(_SCHEMA)
                yield database
        except sqlite3.Error as error:
            raise ApprovalError(
                f"{self.path}: the site's studies cannot be read or written ({error}), so none "
                "that needs an approval runs; free space on its disk, see that this user may "
                "write there, and ask again"
            ) from error


def check_approved(
    policy: Policy,
    approvals: Approvals,
    digest: str,
    name: str,
    overrides: Sequence[str],
    now: datetime,
) -> None:
    """Refuse a study that this site has not approved, and write down that it was asked for.

    The policy's list approves too. A rejection wins over it: who rejects a study that a list or an
    open policy lets run means that one study.

    digest: of the study, as the server and as this site composed it; they are equal.

    Raises:
        RefusalError: with both digests, and nothing that tells of the site.
    """
    listed = policy.studies.approved is None or digest in policy.studies.approved
    if listed and approvals.status(digest) != REJECTED:
        return
    if approvals.propose(digest, name, overrides, now) != APPROVED:
        raise RefusalError(
            "policy",
            f"the server runs study {digest}, this site composes study {digest}; it is not "
            "approved here",
        )


def _told(now: datetime) -> str:
    return now.isoformat(timespec="seconds")


def _unseen(digest: str) -> Proposal:
    return Proposal(
        digest=digest,
        name="",
        overrides=(),
        status=PROPOSED,
        first_seen=None,
        last_asked=None,
        decided_by=None,
        decided=None,
    )


def _proposal(row: Sequence[Any]) -> Proposal:
    values: dict[str, Any] = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Proposal(**{**values, "overrides": tuple(loads(values["overrides"]))})


def _rows(database: sqlite3.Connection) -> list[Proposal]:
    return [_proposal(row) for row in database.execute(f"SELECT {_COLUMNS} FROM studies")]


def _row(database: sqlite3.Connection, digest: str) -> Proposal | None:
    query = f"SELECT {_COLUMNS} FROM studies WHERE digest = ?"
    row = database.execute(query, (digest,)).fetchone()
    return None if row is None else _proposal(row)


def _put(database: sqlite3.Connection, row: Sequence[str | None]) -> None:
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT OR REPLACE INTO studies ({_COLUMNS}) VALUES ({marks})", row)


def _drop_oldest(database: sqlite3.Connection) -> None:
    database.execute(
        "DELETE FROM studies WHERE digest IN (SELECT digest FROM studies WHERE status = ? "
        "ORDER BY last_asked DESC, first_seen DESC LIMIT -1 OFFSET ?)",
        (PROPOSED, MOST_UNANSWERED),
    )
