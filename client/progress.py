"""What a long work tells of itself, and how it is stopped; without torch, for both halves."""

from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps of the round) after each step; it may raise StoppedError."""


class StoppedError(Exception):
    """The work was asked to end before it was done. Nothing of it is kept, and nothing leaves."""


def unheard(done: int, of: int) -> None:
    """Tell nobody."""
