"""Follows the log of a run: what was added since the last look, and what a person asks of it."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from server.events import EVENTS, words_of
from server.page.story import Story

PIECE_BYTES = 2**20
MOST_LINES = 1000
QUIET = ("reply", "evaluated", "measured", "round", "again", "stray")
"""Events that say that all goes on; left out where a person asks for what matters."""


class Follower:
    """The story of one run, as far as its log was read. Any thread may look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.story = Story()
        self.lock = threading.Lock()
        """Held while the story changes; hold it to read more of it than one number."""
        self._path = folder / EVENTS
        self._file = 0
        """The inode that was read."""
        self._position = 0
        self.size = 0
        """Bytes of the log, as far as they are whole lines."""

    @property
    def position(self) -> int:
        """Bytes of the log that are in the story; it grows with every event."""
        return self._position

    def look(self, most_bytes: int = 2**62) -> bool:
        """Read on, no more than so many bytes and a piece; return whether all was read."""
        with self.lock, suppress(FileNotFoundError), self._path.open("rb") as file:
            about = self._path.stat()
            if about.st_ino != self._file or about.st_size < self._position:
                # Another run lies in the folder now.
                self.story, self._position, self._file = Story(), 0, about.st_ino
            self.size = about.st_size
            file.seek(self._position)
            end = self._position + most_bytes
            while self._position < end:
                lines = file.readlines(PIECE_BYTES)
                if lines and not lines[-1].endswith(b"\n"):
                    # It is being written.
                    lines.pop()
                if not lines:
                    # What is being written, or was cut, is no part of it yet.
                    self.size = self._position
                    return True
                for line in lines:
                    self._position += len(line)
                    self._hear(line)
            return False
        return True

    def _hear(self, line: bytes) -> None:
        # A page is no judge of the log: what a killed process cut in two is left out.
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            self.story.hear(from_json(line))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which events a person asks for."""

    site: str = ""
    """Those that name this site; empty: all."""
    text: str = ""
    """Those whose name or words hold this text, in upper or lower case; empty: all."""
    all_kinds: bool = False
    """Also those of QUIET."""
    last: int = 200
    """How many, the newest ones."""


def last_events(folder: Path, asked: Asked) -> list[dict[str, Any]]:
    """Return the newest events of a run that a person asks for, the oldest of them first."""
    found: list[dict[str, Any]] = []
    site = json.dumps(asked.site) if asked.site else ""
    # Most lines are seen to be others before they are read.
    parts = re.findall(r"[a-z0-9]+", asked.text.lower())
    for raw in _lines_backwards(folder / EVENTS):
        if len(found) >= min(asked.last, MOST_LINES):
            break
        line = raw.decode(errors="replace")
        if site in line and (_is_summed(line) or all(part in line.lower() for part in parts)):
            found += [event for event in [_event_of(line)] if _is_asked(event, asked)]
    return found[::-1]


def _is_summed(line: str) -> bool:
    """Whether the words for this line may have parts that are not in it (words_of)."""
    return "{" in line[1:] or "[" in line


def _event_of(line: str) -> dict[str, Any]:
    try:
        event = from_json(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _is_asked(event: dict[str, Any], asked: Asked) -> bool:
    name = str(event.get("event", ""))
    matters = asked.all_kinds or name not in QUIET or bool(event.get("why"))
    return bool(name) and matters and asked.text.lower() in f"{name} {words_of(event)}".lower()


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file, the newest first, with a piece of it in memory."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        begin = file.seek(0, 2)
        rest = b""
        newest = True
        while begin > 0:
            size = min(PIECE_BYTES, begin)
            begin -= size
            file.seek(begin)
            first, *lines = (file.read(size) + rest).split(b"\n")
            if newest and lines:
                # What follows the last line feed is nothing, or is being written.
                lines.pop()
                newest = False
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest and not newest:
            yield rest
