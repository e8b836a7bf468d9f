"""What a webhook is told is signed, and is told when somebody has to look."""

import hashlib
import hmac
import json
from typing import Any

import pytest

from server.tracking.webhook import WebhookSink
from tests.server.tracking.receiver import Told, receiver

SECRET = b"0123456789abcdef"
ABOUT = {"run": "2026_smoke", "study": "smoke"}
START = {"time": 1000.0, "event": "start", "rounds": 2, "done": 0}
END = {"time": 2000.0, "event": "end", "status": "completed", "reason": "words of a site"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def is_genuine(told: Told) -> bool:
    headers = {name.lower(): value for name, value in told.headers.items()}
    signed = headers["x-wardround-time"].encode() + b"." + told.body
    wanted = "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(headers["x-wardround-signature"], wanted)


def test_an_end_is_told_signed_and_without_free_text() -> None:
    with receiver() as place:
        WebhookSink(place.url, SECRET, ABOUT, 60.0, Clock()).take([START, END])
    (told,) = place.told
    assert told.json == {**ABOUT, "kind": "ended", "status": "completed"}
    assert is_genuine(told)
    other = Told(told.path, told.headers, told.body.replace(b"completed", b"failed"))
    assert not is_genuine(other)


def test_a_stall_is_told_once_and_again_after_the_next_one() -> None:
    clock = Clock()
    with receiver() as place:
        sink = WebhookSink(place.url, SECRET, ABOUT, 60.0, clock)

        def after(seconds: float, *events: dict[str, Any]) -> list[str]:
            place.told.clear()
            clock.now += seconds
            sink.take(events)
            return [told.json["kind"] for told in place.told]

        assert after(0) == []
        assert after(500) == []
        assert after(0, {**START, "time": 1500.0}) == []
        assert after(59) == []
        assert after(2) == ["stalled"]
        assert after(1000) == []
        assert after(0, {"time": clock.now, "event": "round", "round": 1}) == []
        assert after(61) == ["stalled"]
        assert after(0, {**END, "time": clock.now}) == ["ended"]
        assert after(1000) == []


def test_what_was_told_before_an_error_is_not_told_again() -> None:
    lost = [
        {"time": n, "event": "missing", "site": f"st-{n}", "round": 1, "why": ""} for n in range(4)
    ]
    refused = ["st-2", "st-2"]

    def answer(_: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["site"] in refused:
            refused.remove(body["site"])
            return 500, {}
        return 200, {}

    with receiver(answer) as place:
        sink = WebhookSink(place.url, SECRET, ABOUT, 1e9, Clock())
        for _ in range(2):
            with pytest.raises(OSError, match="500"):
                sink.take(lost[:3])
        sink.take(lost)
        sink.take(lost[:1])
    sites = [told.json["site"] for told in place.told]
    assert sites == ["st-0", "st-1", "st-2", "st-2", "st-2", "st-3", "st-0"]


def test_a_webhook_that_refuses_is_an_error_and_is_not_followed_elsewhere() -> None:
    for status in (500, 302, 404):
        with receiver(lambda path, body, status=status: (status, {})) as place:
            with pytest.raises(OSError, match=str(status)):
                WebhookSink(place.url, SECRET, ABOUT, 60.0).take([START, END])
            assert len(place.told) == 1
    assert json.loads(place.told[0].body)["kind"] == "ended"
