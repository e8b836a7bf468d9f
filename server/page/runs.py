"""The runs of a folder as a page sees them: each followed, its result read once."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from common.locks import is_held
from server.events import EVENTS
from server.page.follow import Follower

LOCKS = (".lock", "lock")
"""Of a simulated run (simulation/run.py), and of a server's (server/studies.py)."""
RUN, RESULT, REPORT = "run.json", "result.json", "report.html"
T = TypeVar("T")
MOST_DEPTH = 3
"""Folders of sweeps and of tables lie in folders."""


@dataclass
class Seen:
    """One run."""

    name: str
    """Its folder's name below the folder of runs; of several parts where it lies deeper."""
    follower: Follower
    of_daemon: bool = False
    """Whether the centre's daemon works on it, and begins it again whatever ended it."""
    _kept: Any = None
    _read_at: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.follower.folder

    def of_result(self, read: Callable[[dict[str, Any], float], T]) -> T | None:
        """Return what `read` takes from result.json and its Unix time; None where there is none.

        That is kept, and not the result, which has a record of every round and site.
        """
        path = self.folder / RESULT
        with self._lock:
            try:
                about = path.stat()
            except FileNotFoundError:
                return None
            if about.st_mtime_ns != self._read_at:
                self._kept = read(json.loads(path.read_text()), about.st_mtime)
                self._read_at = about.st_mtime_ns
            kept: T = self._kept
        return kept

    def worked_on(self) -> bool:
        """Whether a process works on it just now."""
        # Where there is no lock file, looking must not make one.
        paths = [self.folder / name for name in LOCKS]
        return any(path.exists() and is_held(path) for path in paths)


@dataclass
class Runs:
    """All runs below a folder."""

    folder: Path
    of_daemon: bool = False
    _known: dict[str, Seen] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def all(self) -> list[Seen]:
        """Return the runs, the newest first; one that is gone is forgotten."""
        with self._lock:
            here = [path.relative_to(self.folder).as_posix() for path in self._folders()]
            self._known = {name: self._known.get(name) or self._seen(name) for name in here}
            found = list(self._known.values())
        return sorted(found, key=lambda run: _touched(run.folder), reverse=True)

    def named(self, name: str) -> Seen | None:
        """Return a run by its name; None where there is none, or none any more."""
        known = self._known.get(name)
        if known is None or not (known.folder / RUN).is_file():
            self.all()
        return self._known.get(name)

    def _seen(self, name: str) -> Seen:
        return Seen(name, Follower(self.folder / name), self.of_daemon)

    def _folders(self) -> list[Path]:
        patterns = ["/".join(["*"] * depth) for depth in range(1, MOST_DEPTH + 1)]
        found = [p for pattern in patterns for p in self.folder.glob(f"{pattern}/{RUN}")]
        return [path.parent for path in found]


def _touched(folder: Path) -> float:
    for name in (EVENTS, RUN):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0
