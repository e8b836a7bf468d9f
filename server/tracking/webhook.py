"""Tells a URL when a study ends, stalls or loses a site: a signed POST, nothing of any patient.

    X-Wardround-Time: 1795857791
    X-Wardround-Signature: sha256=HEX        HMAC-SHA256 of "TIME.BODY" with the shared secret
    {"kind": "ended", "run": "...", "study": "...", "status": "completed"}

Names of runs, studies and sites and a status are all that is told; no site's words are.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from server.tracking.numbers import Event, notices_of

TIMEOUT_S = 10.0


class WebhookSink:
    """Tells of one run."""

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: bytes,
        about: dict[str, str],
        stall_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """about: the names of the run and of its study. stall_s: without an event, a stall."""
        self._url, self._secret, self._about = url, secret, about
        self._stall_s, self._clock = stall_s, clock
        self._told = 0
        """Notices of the events that are being taken, after an error: those come again."""
        self._last: float | None = None
        self._quiet = True
        """Whether no stall is to be told: the study has not begun, has ended, or it was told."""

    def take(self, events: Sequence[Event]) -> None:
        """Tell what of the events somebody is to know; without events, whether it stalls."""
        for notice in [of for event in events for of in notices_of(event)][self._told :]:
            self._tell(notice)
            self._told += 1
        self._told = 0
        if events:
            self._last, self._quiet = events[-1]["time"], events[-1]["event"] == "end"
        if self._last is None or self._quiet:
            return
        silent_s = self._clock() - self._last
        if silent_s > self._stall_s:
            self._tell({"kind": "stalled", "seconds": round(silent_s)})
            self._quiet = True

    def close(self) -> None:
        """Nothing is open."""

    def _tell(self, notice: dict[str, Any]) -> None:
        body = json.dumps({**self._about, **notice}, sort_keys=True).encode()
        at = str(round(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "X-Wardround-Time": at,
            "X-Wardround-Signature": f"sha256={signature(self._secret, at, body)}",
        }
        # Nobody is followed elsewhere: what is told is for this URL alone.
        answer = httpx.post(
            self._url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False
        )
        if not answer.is_success:
            raise OSError(f"the webhook answers {answer.status_code}")


def signature(secret: bytes, at: str, body: bytes) -> str:
    """Return HMAC-SHA256 (RFC 2104) of the time and the body, in hexadecimal."""
    return hmac.new(secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()
