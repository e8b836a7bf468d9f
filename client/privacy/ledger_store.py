"""A ledger on disk: one SQLite file, a head file that tells of a cut, a lock file.

    0123456789abcdef.ledger        the rows; append-only by triggers, WAL, synchronous=FULL
    0123456789abcdef.ledger.head   (seq, hash) of the newest row when something last left
    0123456789abcdef.ledger.lock   held (flock) by the one trainer that works with the data

common/files.py is not used: its files are not 0600.
"""

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from client.privacy.ledger_rows import NO_HASH, Chain, LedgerBusyError, LedgerError, Row
from common.durable import is_durable
from common.locks import HeldError, held
from common.secret_files import replace_file, sync_folder

SUFFIX = ".ledger"
NAME_DIGITS = 16
_RESTORE = (
    "nothing may train on this data until the ledger and its .head file are restored together "
    "from the newest backup, and the data officer knows"
)
_BESIDE = ("-wal", "-shm", "-journal")
_COLUMNS = "seq, time, kind, body, secret, previous, hash"
_SCHEMA = """
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    secret TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE TRIGGER no_update BEFORE UPDATE ON rows
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON rows
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- REPLACE deletes without a DELETE trigger: a row's number must be the next one.
CREATE TRIGGER no_replace BEFORE INSERT ON rows
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM rows)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


_MADE_OF = "SELECT type, name, sql FROM sqlite_master ORDER BY name"


@dataclass(frozen=True)
class Head:
    """The newest row when something last left the site."""

    seq: int
    """Its number; 0 while a ledger is being made."""
    hash: str
    """Its hash."""


def ledger_path(folder: Path, fingerprint: str) -> Path:
    """Return where the ledger of a data set stands."""
    return folder / f"{fingerprint[:NAME_DIGITS]}{SUFFIX}"


def head_path(path: Path) -> Path:
    """Return where the head of a ledger stands."""
    return path.with_name(path.name + ".head")


def lock_path(path: Path) -> Path:
    """Return where the lock of a ledger stands."""
    return path.with_name(path.name + ".lock")


def create(path: Path, genesis: Row) -> None:
    """Make a ledger with its first row, mode 0600, whole or not at all.

    Raises:
        LedgerError: it cannot be written, or the file system cannot hold a write-ahead log.
    """
    with _written(path):
        # Before the ledger, so that a ledger never is without a head: one was taken away.
        write_head(path, Head(0, NO_HASH))
        temporary = path.with_name(f".{path.name}.tmp")
        for stem in (temporary, path):
            for ending in _BESIDE:
                stem.with_name(stem.name + ending).unlink(missing_ok=True)
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(_connected(temporary, "rw")) as database:
            _set_durable(database)
            (mode,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise LedgerError(
                    f"{path}: this file system cannot hold a write-ahead log; put the site's "
                    "state folder on a local disk"
                )
            database.executescript(_SCHEMA)
            _insert(database, genesis)
        temporary.rename(path)
        sync_folder(path.parent)
        write_head(path, Head(genesis.seq, genesis.hash))


def append(path: Path, row: Row) -> None:
    """Commit a row and then its head; both are on the disk when this returns.

    The caller holds the lock.

    Raises:
        LedgerError: the disk is full or broken; the row counts only if its commit was whole.
    """
    with _written(path):
        with closing(_connected(path, "rw")) as database:
            _set_durable(database)
            _insert(database, row)
        write_head(path, Head(row.seq, row.hash))


def read(path: Path) -> Chain:
    """Return the rows of a ledger, checked; works without the lock and on a read-only copy.

    Raises:
        LedgerError: no such file, not a ledger, of another data set, changed, cut or re-ordered.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: there is no such ledger; correct the path")
    # Before the rows: a head read after them may be of a row that another process just wrote.
    head = read_head(path)
    try:
        chain = Chain(tuple(_selected(path)))
    except (sqlite3.OperationalError, OSError) as error:
        raise LedgerError(
            f"{path}: the ledger cannot be read now ({error}), so nothing may leave; free space on "
            "its disk, see that this user may read it, and ask again"
        ) from error
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: not a ledger ({error}); {_RESTORE}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerError(f"{path}: the ledger is broken: {error}; {_RESTORE}") from error
    if path.name != ledger_path(path.parent, chain.first_fingerprint).name:
        raise LedgerError(
            f"{path}: a ledger of another data set: its first row is of "
            f"{chain.first_fingerprint[:NAME_DIGITS]}; give the file its own name back"
        )
    if head.seq > len(chain.rows):
        raise LedgerError(
            f"{path}: {len(chain.rows)} rows are there, {head.seq} were: the newest were cut off; "
            f"{_RESTORE}"
        )
    if head.seq and chain.rows[head.seq - 1].hash != head.hash:
        raise LedgerError(
            f"{path}: row {head.seq} is not the one that its .head file names; {_RESTORE}"
        )
    return chain


def read_head(path: Path) -> Head:
    """Return the head of a ledger.

    Raises:
        LedgerError: it is missing or broken.
    """
    try:
        head = Head(**json.loads(head_path(path).read_bytes()))
    except FileNotFoundError as error:
        raise LedgerError(f"{head_path(path)}: the ledger's head is missing; {_RESTORE}") from error
    except (OSError, ValueError, TypeError) as error:
        raise LedgerError(f"{head_path(path)}: is not a ledger's head; {_RESTORE}") from error
    if type(head.seq) is not int or head.seq < 0 or type(head.hash) is not str:
        raise LedgerError(f"{head_path(path)}: is not a ledger's head; {_RESTORE}")
    return head


def write_head(path: Path, head: Head) -> None:
    """Replace the head of a ledger: temporary name, fsync, rename, fsync of the folder.

    Raises:
        LedgerError: the disk is full or broken; the old head stands.
    """
    with _written(path):
        content = json.dumps({"seq": head.seq, "hash": head.hash}).encode() + b"\n"
        replace_file(head_path(path), content)


@contextmanager
def locked(lock: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock file; it is given back when the block or the process ends, killed or not.

    Raises:
        LedgerBusyError: another process has it and `wait` is false.
        LedgerError: it cannot be made.
    """
    with ExitStack() as stack:
        try:
            with _written(lock):
                stack.enter_context(
                    held(lock, "works with this data set", math.inf if wait else 0.0)
                )
        except HeldError as error:
            raise LedgerBusyError(
                f"{lock}: another trainer works with this data set; wait until it has ended, or "
                "stop it"
            ) from error
        yield


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(
            f"{path}: the ledger cannot be written ({error}), so nothing may leave; free space on "
            "its disk, see that this user may write there, and ask again"
        ) from error


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(address, uri=True, isolation_level=None)


def _set_durable(database: sqlite3.Connection) -> None:
    database.execute(f"PRAGMA synchronous={'FULL' if is_durable() else 'OFF'}")


def _insert(database: sqlite3.Connection, row: Row) -> None:
    # One statement outside a transaction is a transaction of its own.
    database.execute(f"INSERT INTO rows ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(row))


def _selected(path: Path) -> list[Row]:
    try:
        return _rows_of(path, "ro")
    except sqlite3.OperationalError:
        # Even to be read a write-ahead log needs a file beside it, which a read-only folder or a
        # full disk does not give: read a copy.
        with TemporaryDirectory() as room:
            copy = Path(room, path.name)
            shutil.copyfile(path, copy)
            log = path.with_name(path.name + "-wal")
            if log.exists():
                shutil.copyfile(log, copy.with_name(log.name))
            return _rows_of(copy, "rw")


def _rows_of(path: Path, mode: str) -> list[Row]:
    with closing(_connected(path, mode)) as database:
        if database.execute(_MADE_OF).fetchall() != _own_schema():
            raise ValueError("its table or its triggers were changed")
        # Bytes that are not UTF-8 are then a broken row, not a disk that cannot be read.
        database.text_factory = bytes.decode
        names = _COLUMNS.split(", ")
        found = database.execute(f"SELECT {_COLUMNS} FROM rows ORDER BY seq")
        return [Row(**dict(zip(names, values, strict=True))) for values in found]


@cache
def _own_schema() -> list[Any]:
    with closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(_SCHEMA)
        return ours.execute(_MADE_OF).fetchall()
