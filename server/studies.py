"""The studies that a server was asked to run: one folder each, and what stands in it.

    run.json      what was asked; written once
    flower.json   the Flower run that works on it now, and how often one was begun
    stop          there while the study is to be stopped
    lock          held by the process that works on it
    events.jsonl, checkpoint.safetensors, result.json: of the rounds (server/run.py)

A study that has no result and is not stopped is to be worked on: whoever starts the server starts
it again, whatever ended it.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from common.files import read_json, write_json
from common.locks import held, is_held
from server.events import EVENTS

RUNS, RUN, FLOWER, STOP, LOCK, RESULT = (
    "runs",
    "run.json",
    "flower.json",
    "stop",
    "lock",
    "result.json",
)
LOCK_WAIT_S = 90.0
RUNS_FOLDER, REAL = "WARDROUND_RUNS", "WARDROUND_REAL"
"""Of the environment: where runs lie, and whether the sites are real ones."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a study's folder was made for."""

    name: str
    """The folder's name."""
    study: str
    """The study's own name."""
    digest: str
    overrides: list[str]
    sites: list[str]
    """The agreed sites."""
    join_timeout_s: float
    """How long the agreed sites may take to be there, approved and ready."""
    asked_at: float
    """Unix time."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The Flower run that works on a study."""

    flower_run: int
    begun_at: float
    """Unix time."""
    fruitless: int = 0
    """Attempts before this one without a new full round."""
    rounds_done: int = 0
    """When the attempt began."""
    gave_up: str = ""
    """Why no further attempt is made; empty while there is hope."""


_Asked, _Attempt = TypeAdapter(Asked), TypeAdapter(Attempt)


@dataclass(frozen=True)
class StudyRun:
    """One study's folder."""

    folder: Path

    @property
    def asked(self) -> Asked:
        """What was asked."""
        return _Asked.validate_python(read_json(self.folder / RUN))

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt; None before the first."""
        path = self.folder / FLOWER
        return _Attempt.validate_python(read_json(path)) if path.exists() else None

    def keep_attempt(self, attempt: Attempt) -> None:
        """Write the newest attempt down."""
        write_json(self.folder / FLOWER, asdict(attempt))

    def result(self) -> dict[str, Any] | None:
        """Return result.json; None before the end."""
        path = self.folder / RESULT
        return dict(read_json(path)) if path.exists() else None

    def status(self) -> tuple[str, str]:
        """Return how the study stands, and why where there is a reason.

        running, stopping, or how it ended: completed, partial, failed or stopped.
        """
        result = self.result()
        if result is not None:
            return result["status"], result["reason"] or ""
        attempt = self.attempt
        if attempt is not None and attempt.gave_up:
            return "failed", attempt.gave_up
        return ("stopping" if stop_asked(self.folder) else "running"), ""

    def worked_on(self) -> bool:
        """Whether a process works on it just now."""
        return is_held(self.folder / LOCK)

    def working(self, wait_s: float = LOCK_WAIT_S) -> AbstractContextManager[None]:
        """Hold the folder while its rounds run.

        A process that was given up may live for some seconds more: it is waited for.
        """
        return held(self.folder / LOCK, "works on this study", wait_s)

    def last_event_at(self) -> float:
        """Return when something happened last, in Unix time; 0 before anything has."""
        path = self.folder / EVENTS
        return path.stat().st_mtime if path.exists() else 0.0

    def rounds_done(self) -> int:
        """Return the full rounds, as the events tell them."""
        path = self.folder / EVENTS
        return path.read_text().count('"event": "round done"') if path.exists() else 0


def runs_in(home: Path) -> list[StudyRun]:
    """Return the studies of a server, by name: the oldest first."""
    return [StudyRun(path.parent) for path in sorted((home / RUNS).glob(f"*/{RUN}"))]


def run_named(home: Path, name: str) -> StudyRun:
    """Return the study whose folder has this name, or the only one whose name begins so.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = [run for run in runs_in(home) if run.folder.name.startswith(name)]
    exact = [run for run in found if run.folder.name == name]
    if len(exact or found) != 1:
        known = ", ".join(run.folder.name for run in found or runs_in(home)[-5:]) or "none"
        raise ValueError(
            f"{name!r} names {len(found)} studies of {home / RUNS}; give one of: {known}"
        )
    return (exact or found)[0]


def ask(
    home: Path,
    study: str,
    digest: str,
    overrides: Sequence[str],
    sites: Sequence[str],
    join_timeout_s: float,
    prepare: Callable[[Path], None] = lambda _: None,
) -> StudyRun:
    """Write down that a study is to be run; the daemon begins it when it sees it.

    prepare: called with its folder before that.
    """
    stem = time.strftime("%Y-%m-%d_%H-%M-%S", time.gmtime()) + f"_{study}"
    for number in range(1, 1000):
        folder = home / RUNS / (stem if number == 1 else f"{stem}_{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    asked = Asked(
        name=folder.name,
        study=study,
        digest=digest,
        overrides=list(overrides),
        sites=sorted(sites),
        join_timeout_s=join_timeout_s,
        asked_at=time.time(),
    )
    prepare(folder)
    write_json(folder / RUN, asdict(asked))
    return StudyRun(folder)


def ask_to_stop(run: StudyRun) -> None:
    """Write down that a study is to be stopped.

    Raises:
        ValueError: it has ended.
    """
    status, _ = run.status()
    if status not in ("running", "stopping"):
        raise ValueError(f"{run.folder.name} has ended: {status}; there is nothing to stop")
    (run.folder / STOP).touch()


def go_on(run: StudyRun, wait_s: float = LOCK_WAIT_S) -> None:
    """Write down that a study is to be gone on with; its earlier result is put aside.

    wait_s: for the process that is still ending.

    Raises:
        HeldError: it has not ended by then.
        ValueError: it runs, or it is done.
    """
    status, _ = run.status()
    if status in ("running", "completed", "partial"):
        raise ValueError(f"{run.folder.name} is {status}; there is nothing to go on with")
    with run.working(wait_s):
        for name in (FLOWER, RESULT, STOP):
            (run.folder / name).unlink(missing_ok=True)


def stop_asked(folder: Path) -> bool:
    """Whether the study of a folder is to be stopped."""
    return (folder / STOP).exists()
