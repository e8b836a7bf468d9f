import socket

import pytest

from simulation.chaos.waiting import TooLateError, answers, free_port, until


def test_what_is_waited_for_is_returned() -> None:
    seen = iter([None, False, "there"])
    assert until("it is there", lambda: next(seen), 10.0) == "there"


def test_a_zero_is_an_answer() -> None:
    assert until("a number", lambda: 0, 1.0) == 0


def test_what_does_not_come_is_named() -> None:
    with pytest.raises(TooLateError, match=r"not within 0\.1 s: the moon falls"):
        until("the moon falls", lambda: None, 0.1)


def test_a_free_port_is_answered_once_somebody_listens() -> None:
    port = free_port()
    assert not answers(port)
    with socket.create_server(("127.0.0.1", port)):
        assert answers(port)
