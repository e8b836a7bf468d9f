"""Tells the centre, every few seconds, how far the site is; hears whether it is to stop."""

import logging
import threading
from dataclasses import dataclass, replace

import httpx

WORD_PATH = "/v1/wardround/word"
EVERY_S = 2.0
TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is told: which round of which run, and its batches; no more than its answer tells."""

    run: str = ""
    """The run's name at the centre; empty while the site waits."""
    round: int = 0
    done: int = 0
    of: int = 0


class Teller:
    """A thread that tells the newest state of the work, whatever the work is doing."""

    def __init__(self, client: httpx.Client, session: str, log: logging.Logger) -> None:
        """client: of the centre's address. session: name of this process."""
        self._client = client
        self._session = session
        self._log = log
        self._work = Work()
        self._job, self._stopped_job = 0, -1
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="teller")
        self._thread.start()

    def now(self, work: Work) -> None:
        """Change what is told. A stop that was heard before was for other work.

        A study that was stopped and is gone on with has the same name.
        """
        # In this order, so that the thread never takes the old work's stop for the new one's.
        self._work = work
        self._job += 1

    def step(self, done: int, of: int) -> bool:
        """Take note of a batch; return whether the centre wants the work to go on."""
        self._work = replace(self._work, done=done, of=of)
        return self._stopped_job != self._job

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        while True:
            self._tell()
            if self._ended.wait(EVERY_S):
                return

    def _tell(self) -> None:
        job, work = self._job, self._work
        try:
            answer = self._client.post(WORD_PATH, json={"session": self._session, **vars(work)})
            if answer.status_code == httpx.codes.OK and answer.json().get("stop") is True:
                self._stopped_job = job
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            # The messages themselves tell of a centre that is gone; this only counts batches.
            self._log.info("the centre did not hear how far the work is: %s", error)
