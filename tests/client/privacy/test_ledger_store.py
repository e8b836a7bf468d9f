import contextlib
import ctypes
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy import ledger_store
from client.privacy.ledger_rows import Chain, LedgerError
from client.privacy.ledger_store import Head, head_path, locked, read, read_head, write_head
from common.durable import simulated
from tests.client.privacy.ledgers import charged, tampered, values

Whole = tuple[Path, Chain]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return a ledger of four rows, never to be changed, and its chain."""
    path = charged(tmp_path_factory.mktemp("whole"), 3).path
    return path, read(path)


def copied(path: Path, folder: Path) -> Path:
    """Copy a ledger and its head into a new folder."""
    folder.mkdir(exist_ok=True)
    for file in (path, head_path(path)):
        shutil.copyfile(file, folder / file.name)
    return folder / path.name


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET time = 'never' WHERE seq = 2",
        "UPDATE OR IGNORE rows SET seq = 9 WHERE seq = 4",
        "DELETE FROM rows WHERE seq = 4",
        "DELETE FROM rows",
        "REPLACE INTO rows SELECT * FROM rows WHERE seq = 4",
        "INSERT OR REPLACE INTO rows SELECT 2, time, kind, body, secret, previous, hash FROM rows",
        "INSERT OR IGNORE INTO rows SELECT 9, time, kind, body, secret, previous, hash FROM rows",
    ],
)
def test_only_the_next_row_can_be_written(whole: Whole, tmp_path: Path, statement: str) -> None:
    path = copied(whole[0], tmp_path)
    with closing(sqlite3.connect(path)) as database:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
        database.rollback()
    assert read(path) == whole[1]


@settings(max_examples=60)
@given(draw=st.integers(0, 2**32))
def test_a_changed_byte_of_a_row_is_found(
    whole: Whole, draw: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(draw)
    path = copied(whole[0], tmp_path_factory.mktemp("changed"))
    seq = rng.randint(1, 4)
    column = rng.choice(
        ("time", "kind", "body", "previous", "hash", *(["secret"] if seq == 1 else []))
    )
    names = ("seq", "time", "kind", "body", "secret", "previous", "hash")
    text = bytearray(values(path)[seq - 1][names.index(column)].encode())
    text[rng.randrange(len(text))] ^= rng.randint(1, 255)
    tampered(path, f"UPDATE rows SET {column} = CAST(x'{text.hex()}' AS TEXT) WHERE seq = {seq}")
    with pytest.raises(LedgerError, match="the ledger is broken"):
        read(path)


@settings(max_examples=100)
@given(draw=st.integers(0, 2**32))
def test_a_changed_byte_of_the_file_is_found_or_changes_no_row(
    whole: Whole, draw: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(draw)
    path = copied(whole[0], tmp_path_factory.mktemp("flipped"))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randint(1, 255)
    path.write_bytes(content)
    with contextlib.suppress(LedgerError):
        assert read(path) == whole[1]


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (("DELETE FROM rows WHERE seq = 2",), "row 2 is missing"),
        (("DELETE FROM rows WHERE seq = 4",), "3 rows are there, 4 were"),
        (("DELETE FROM rows WHERE seq > 1",), "1 rows are there, 4 were"),
        (("DELETE FROM rows",), "no rows"),
        (
            (
                "UPDATE rows SET seq = 9 WHERE seq = 2",
                "UPDATE rows SET seq = 2 WHERE seq = 3",
                "UPDATE rows SET seq = 3 WHERE seq = 9",
            ),
            "row 2 is missing or in another place",
        ),
        (("DELETE FROM rows WHERE seq = 2", "UPDATE rows SET seq = seq - 1 WHERE seq > 2"), "row"),
        (("UPDATE rows SET body = CAST(body AS BLOB) WHERE seq = 2",), "another type"),
        (("UPDATE rows SET secret = '{}' WHERE seq = 1",), "patients of row 1 were changed"),
    ],
)
def test_removed_cut_and_swapped_rows_are_found(
    whole: Whole, tmp_path: Path, statements: tuple[str, ...], told: str
) -> None:
    path = copied(whole[0], tmp_path)
    tampered(path, *statements)
    with pytest.raises(LedgerError, match=told):
        read(path)


def test_a_newest_row_of_another_content_is_found_by_the_head(whole: Whole, tmp_path: Path) -> None:
    path = copied(whole[0], tmp_path)
    write_head(path, Head(4, "0" * 64))
    with pytest.raises(LedgerError, match=r"row 4 is not the one that its \.head"):
        read(path)


def test_removed_triggers_are_found(whole: Whole, tmp_path: Path) -> None:
    path = copied(whole[0], tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER no_delete")
    with pytest.raises(LedgerError, match="triggers were changed"):
        read(path)


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"seq": -1, "hash": ""}', b'{"seq": 1}'])
def test_a_ledger_without_its_head_is_refused(
    whole: Whole, tmp_path: Path, content: bytes | None
) -> None:
    path = copied(whole[0], tmp_path)
    if content is None:
        head_path(path).unlink()
    else:
        head_path(path).write_bytes(content)
    with pytest.raises(LedgerError, match="head"):
        read(path)


def test_a_renamed_ledger_is_one_of_another_data_set(whole: Whole, tmp_path: Path) -> None:
    path = copied(whole[0], tmp_path)
    other = path.with_name("0123456789abcdef.ledger")
    head_path(path).rename(head_path(other))
    path.rename(other)
    with pytest.raises(LedgerError, match="a ledger of another data set"):
        read(other)


def test_a_head_behind_its_ledger_is_fine(whole: Whole, tmp_path: Path) -> None:
    path = copied(whole[0], tmp_path)
    write_head(path, Head(2, whole[1].rows[1].hash))
    assert read(path) == whole[1]
    assert read_head(path).seq == 2
    assert json.loads(head_path(path).read_bytes())["seq"] == 2


def test_a_missing_ledger_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no such ledger"):
        read(tmp_path / "0123456789abcdef.ledger")


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, wait=False), pytest.raises(LedgerError), locked(lock, wait=False):
        pytest.fail("two hold it")
    with locked(lock, wait=False):
        assert lock.exists()


def _without_root_rights() -> None:
    # Root writes into any folder unless it gives up CAP_DAC_OVERRIDE (1) and its kin (2).
    library = ctypes.CDLL(None)
    for capability in (1, 2):
        library.prctl(24, capability, 0, 0, 0)


@pytest.mark.parametrize("with_log", [False, True])
def test_a_ledger_in_a_read_only_folder_is_read(
    whole: Whole, tmp_path: Path, with_log: bool
) -> None:
    path = copied(whole[0], tmp_path / "copy")
    if with_log:
        # As a killed process leaves it: the newest row is in the log alone.
        with closing(sqlite3.connect(path)) as database:
            names = "time, kind, body, secret, previous, hash"
            database.execute(f"INSERT INTO rows SELECT 5, {names} FROM rows WHERE seq = 4")
            database.commit()
            log = path.with_name(path.name + "-wal").read_bytes()
            content = path.read_bytes()
        path.write_bytes(content)
        path.with_name(path.name + "-wal").write_bytes(log)
    path.parent.chmod(0o500)
    code = (
        "import sys; from pathlib import Path; from client.privacy.ledger_store import read\n"
        "try: print(len(read(Path(sys.argv[1])).rows))\n"
        "except ValueError as error: print(error)\n"
    )
    before = sorted(os.listdir(path.parent))
    out = subprocess.check_output(
        [sys.executable, "-c", code, str(path)], text=True, preexec_fn=_without_root_rights
    )
    assert sorted(os.listdir(path.parent)) == before
    # The fifth row is a copy of the fourth: that it is refused shows that it was seen.
    assert ("row 5 is missing or in another place" in out) if with_log else out == "4\n"


def test_a_row_is_on_the_disk_before_it_counts_except_of_a_virtual_hospital(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    connected = ledger_store._connected

    def overheard(path: Path, mode: str) -> sqlite3.Connection:
        database = connected(path, mode)
        database.set_trace_callback(said.append)
        return database

    def before_rows() -> set[str]:
        found = {a for a, b in itertools.pairwise(said) if b.startswith("INSERT INTO rows")}
        said.clear()
        return found

    monkeypatch.setattr(ledger_store, "_connected", overheard)
    charged(tmp_path / "real", 2)
    assert before_rows() >= {"PRAGMA synchronous=FULL"}
    with simulated():
        charged(tmp_path / "virtual", 2)
    assert before_rows() >= {"PRAGMA synchronous=OFF"}
