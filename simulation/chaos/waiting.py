"""Waiting for what other processes do: looked at again and again, with a deadline."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.05

Found = TypeVar("Found")


class TooLateError(AssertionError):
    """Something did not come about in time."""


def until(what: str, look: Callable[[], Found | None], deadline_s: float) -> Found:
    """Return what `look` returns as soon as that is neither None nor False.

    what: for the error, in words.

    Raises:
        TooLateError: it was not so within deadline_s.
    """
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > end:
            raise TooLateError(f"not within {deadline_s:g} s: {what}")
        time.sleep(POLL_S)


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens at just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens at a TCP port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
