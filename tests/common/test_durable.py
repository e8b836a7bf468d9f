import os
from pathlib import Path

import pytest

from common.durable import is_durable, simulated
from common.files import write_atomic
from common.secret_files import replace_file, secret_key


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def write_all(folder: Path) -> None:
    write_atomic(folder / "a", b"one")
    replace_file(folder / "b", b"two")
    secret_key(folder / "keys" / "c", 16)


def test_a_file_and_its_folder_are_on_the_disk(synced: list[int], tmp_path: Path) -> None:
    write_all(tmp_path)
    assert len(synced) == 6


def test_a_virtual_hospital_does_not_wait_for_the_disk(synced: list[int], tmp_path: Path) -> None:
    with simulated():
        assert not is_durable()
        write_all(tmp_path)
    assert synced == []
    assert is_durable()
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"one", b"two"]


def test_an_error_ends_the_block(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), simulated():
        (tmp_path / "nowhere").read_bytes()
    assert is_durable()
