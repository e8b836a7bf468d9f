"""Tells the centre, every few seconds, that the site is at work; hears whether it is to stop."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from common.certificates import CertificateError

WORD_PATH = "/v1/wardround/word"
EVERY_S, IDLE_EVERY_S, BEAT_S = 2.0, 15.0, 30.0
"""How often a word is told at work, and between; how often it tells that the work moves."""
TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is told: which round of which run, and that it moves.

    Not its batches: with differential privacy a step takes as long as it drew images, and that is
    nobody's to see (the gate rounds the seconds of an answer for the same reason).
    """

    run: str = ""
    """The run's name at the centre; empty while the site waits."""
    round: int = 0
    beats: int = 0
    """Spans of BEAT_S in which a batch was done."""


class Teller:
    """A thread that tells the newest state of the work, whatever the work is doing."""

    def __init__(
        self,
        client: httpx.Client,
        log: logging.Logger,
        renew: Callable[[], object] = lambda: None,
    ) -> None:
        """client: of the centre's address.

        renew: called before each word, whatever the work is doing: new connections are to show the
        newest certificate.
        """
        self._session = secrets.token_hex(16)
        self._client = client
        self._log = log
        self._renew = renew
        self._work = Work()
        self._job, self._stopped_job = 0, -1
        self._beat_at = time.monotonic()
        self._woken = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="teller")
        self._thread.start()

    def now(self, work: Work) -> None:
        """Change what is told. A stop that was heard before was for other work.

        A study that was stopped and is gone on with has the same name.
        """
        # In this order, so that the thread never takes the old work's stop for the new one's.
        self._work = work
        self._job += 1
        self._woken.set()

    def begin_session(self) -> None:
        """Tell at once that what the centre has sent may be lost, and is to be asked again."""
        self._session = secrets.token_hex(16)
        self._woken.set()

    def step(self) -> bool:
        """Take note of a batch; return whether the centre wants the work to go on."""
        if time.monotonic() - self._beat_at > BEAT_S:
            self._work = replace(self._work, beats=self._work.beats + 1)
            self._beat_at = time.monotonic()
        return self._stopped_job != self._job

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._woken.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        while True:
            self._woken.clear()
            if self._closed:
                return
            try:
                self._renew()
            except CertificateError as error:
                self._log.warning("%s", error)
            self._tell()
            self._woken.wait(EVERY_S if self._work.run else IDLE_EVERY_S)

    def _tell(self) -> None:
        job, work = self._job, self._work
        try:
            answer = self._client.post(WORD_PATH, json={"session": self._session, **vars(work)})
            if answer.status_code == httpx.codes.OK and answer.json().get("stop") is True:
                self._stopped_job = job
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            # The messages themselves tell of a centre that is gone.
            self._log.info("the centre did not hear of the work: %s", error)
