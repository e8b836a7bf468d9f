"""The calls of a courier that a trainer works on: one at a time, each until it ends or is ended."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from client.progress import StoppedError
from common.contract import RefusalError, Released, Request
from common.kept_memory import give_back

STUDY_DIGITS = 12


@dataclass(frozen=True)
class Asked:
    """What a call asks for: equal ones get the same answer."""

    verb: str
    request: Request
    weights: str
    """Digest of the incoming weights."""


@dataclass(eq=False)
class Call:
    """One call: how far its work is, what came of it, and whether it was ended."""

    stopped: bool = False
    """Whether the courier, or the trainer's own end, has ended it."""
    released: Released | None = None
    """The answer, once there is one."""
    progress: tuple[int, int] | None = None
    """The newest (steps done, steps of the round)."""
    heard: int = 0
    """How often there was some: an evaluation tells the same again and again."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def stop(self) -> None:
        """End the work at its next step."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def finish(self, released: Released) -> None:
        """Take note of the answer."""
        with self.changed:
            self.released = released
            self.changed.notify_all()

    def step(self, done: int, of: int) -> None:
        """Take note of a step.

        Raises:
            StoppedError: the call was ended.
        """
        with self.changed:
            if self.stopped:
                raise StoppedError
            self.progress = done, of
            self.heard += 1
            self.changed.notify_all()

    def events(self) -> Iterator[tuple[int, int]]:
        """Yield the newest progress whenever there is some, until the call is over.

        A courier that reads slowly misses some of it, and nothing piles up here.
        """
        told = 0
        while True:
            with self.changed:
                while not self._over() and self.heard == told:
                    self.changed.wait()
                if self._over():
                    return
                told, progress = self.heard, self.progress
            if progress is not None:
                yield progress

    def _over(self) -> bool:
        return self.stopped or self.released is not None


class Bench:
    """Where one call is worked on. An equal one waits for it; another one is refused.

    One thread does all the work: torch keeps its settings for each thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[Call, Asked] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="trainer")

    def check(self, verb: str, request: Request) -> None:
        """Refuse what will find the trainer busy, before its weights are received.

        Raises:
            RefusalError: the trainer works on something else.
        """
        with self._lock:
            self._check(lambda other: (other.verb, other.request) == (verb, request))

    def start(self, call: Call, asked: Asked, work: Callable[[], Released]) -> None:
        """Work on a call as soon as those before it are done. What `work` raises ends the call.

        Raises:
            RefusalError: the trainer works on something else.
        """
        with self._lock:
            self._check(lambda other: other == asked)
            self._calls[call] = asked
        self._worker.submit(self._work, call, work)

    def stop(self) -> None:
        """End every call at its next step."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.stop()

    def ended(self, within_s: float) -> bool:
        """Wait until nothing is worked on any more, and say whether that came in time."""
        try:
            self._worker.submit(lambda: None).result(timeout=within_s)
        except TimeoutError:
            return False
        return True

    def _work(self, call: Call, work: Callable[[], Released]) -> None:
        released = None
        try:
            if not call.stopped:
                released = work()
        finally:
            # Nothing of the patients' lies in freed memory between two calls.
            give_back()
            with self._lock:
                del self._calls[call]
            if released is None:
                call.stop()
            else:
                call.finish(released)

    def _check(self, same: Callable[[Asked], bool]) -> None:
        # A call that was ended is over after its next step: others may wait for that.
        for call, asked in self._calls.items():
            if not call.stopped and not same(asked):
                raise RefusalError(
                    "trainer",
                    f"this site is busy with round {asked.request.round} of study "
                    f"{asked.request.study.digest[:STUDY_DIGITS]}; ask again later",
                )
