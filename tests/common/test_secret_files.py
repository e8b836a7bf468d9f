import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from common.secret_files import PUBLIC, private_folder, replace_file, secret_key, write_new


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_folder(tmp_path / "keys")
        replace_file(tmp_path / "keys" / "key", b"secret")
        replace_file(tmp_path / "request", b"public", PUBLIC)
    finally:
        os.umask(before)
    assert _mode(tmp_path / "keys") == 0o700
    assert _mode(tmp_path / "keys" / "key") == 0o600
    assert _mode(tmp_path / "request") == 0o644


def test_what_a_kill_left_is_taken_away_and_never_read_as_the_file(tmp_path: Path) -> None:
    left = tmp_path / ".key.tmp"
    left.write_bytes(b"half")
    left.chmod(0o666)
    replace_file(tmp_path / "key", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert ((tmp_path / "key").read_bytes(), _mode(tmp_path / "key")) == (b"whole", 0o600)


def test_a_secret_never_lands_in_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"planted")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"planted"


def test_several_who_come_first_at_once_get_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    start = Barrier(8)

    def first(_: int) -> bytes:
        start.wait()
        return secret_key(path, 32)

    for _ in range(10):
        path.unlink(missing_ok=True)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(first, range(8))) == {path.read_bytes()}
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret_key(tmp_path / "key", 32)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ValueError, match="others may read"):
        secret_key(tmp_path / "key", 32)


def test_each_version_is_later_than_the_one_before_also_when_the_clock_went_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "site.json"
    replace_file(path, b"0")
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(ahead, ahead))
    times = [ahead]
    for _ in range(20):
        replace_file(path, b"0")
        times.append(path.stat().st_mtime_ns)
    assert times == sorted(set(times))
