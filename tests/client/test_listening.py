import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from client.listening import LONGEST_PATH_BYTES, ListeningError, listening


class Listener:
    """Binds and listens as gRPC does."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)

    def __call__(self, address: str) -> None:
        self.socket.bind(address.removeprefix("unix:"))
        self.socket.listen()


def connect(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))


def refusal(path: Path) -> str:
    """Return what is said to a trainer that may not listen here."""
    listener = Listener()
    with (
        closing(listener.socket),
        pytest.raises(ListeningError) as refused,
        listening(path, listener),
    ):
        pass
    return str(refused.value)


def test_owner_and_group_alone_may_connect_and_nothing_stays(sockets: Path) -> None:
    path, listener = sockets / "new" / "t.sock", Listener()
    before = os.umask(0)
    os.umask(before)
    with closing(listener.socket), listening(path, listener):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        after = os.umask(0)
        os.umask(after)
        assert after == before
    assert not path.exists()


def test_what_a_killed_trainer_left_is_replaced(sockets: Path) -> None:
    left = Listener()
    left(f"unix:{sockets / 't.sock'}")
    left.socket.close()
    with pytest.raises(ConnectionRefusedError):
        connect(sockets / "t.sock")
    listener = Listener()
    with closing(listener.socket), listening(sockets / "t.sock", listener):
        connect(sockets / "t.sock")


def test_a_second_trainer_is_refused_and_the_first_goes_on(sockets: Path) -> None:
    first = Listener()
    with closing(first.socket), listening(sockets / "t.sock", first):
        assert "another trainer listens" in refusal(sockets / "t.sock")
        connect(sockets / "t.sock")


def test_a_program_that_is_no_trainer_is_not_pushed_out(sockets: Path) -> None:
    other = Listener()
    other(f"unix:{sockets / 't.sock'}")
    with closing(other.socket):
        assert "another program listens" in refusal(sockets / "t.sock")


@pytest.mark.parametrize("mode", [0o701, 0o755, 0o777])
def test_a_folder_that_others_may_enter_is_refused(sockets: Path, mode: int) -> None:
    sockets.chmod(mode)
    assert "chmod o-rwx" in refusal(sockets / "t.sock")


def test_a_file_in_the_way_and_a_path_too_long_are_refused(sockets: Path) -> None:
    (sockets / "t.sock").write_text("precious")
    assert "is no socket" in refusal(sockets / "t.sock")
    assert (sockets / "t.sock").read_text() == "precious"
    assert "set socket" in refusal(sockets / ("x" * LONGEST_PATH_BYTES))
