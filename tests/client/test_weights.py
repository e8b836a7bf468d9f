"""The node's side of the weights' way, against a centre of httpx's own kind."""

import hashlib
from collections.abc import Callable

import httpx
import pytest

from client.fleet import in_words
from client.progress import StoppedError
from client.weights import MOST_BYTES, Transfers
from common.contract import RefusalError
from common.framed_files import WeightsReference

MODEL = bytes(range(256)) * 20_000
NAMED = WeightsReference(sha256=hashlib.sha256(MODEL).hexdigest(), length_bytes=len(MODEL))


def transfers(
    answer: Callable[[httpx.Request], httpx.Response], go_on: Callable[[], bool] = lambda: True
) -> Transfers:
    client = httpx.Client(base_url="https://centre", transport=httpx.MockTransport(answer))
    return Transfers(client, go_on)


def test_what_a_question_names_is_fetched() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/v1/wardround/weights/run/{NAMED.sha256}"
        return httpx.Response(200, stream=httpx.ByteStream(MODEL))

    assert transfers(answer).fetch("run", NAMED) == MODEL


def gives(content: bytes) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(200, stream=httpx.ByteStream(content))


@pytest.mark.parametrize("content", [MODEL[:-1], MODEL + b"x", bytes(len(MODEL))])
def test_other_bytes_than_were_named_are_refused(content: bytes) -> None:
    with pytest.raises(RefusalError, match="not what they are called"):
        transfers(gives(content)).fetch("run", NAMED)


def test_weights_that_the_centre_has_no_more_are_a_refusal() -> None:
    with pytest.raises(RefusalError, match="no longer has"):
        transfers(lambda _: httpx.Response(404)).fetch("run", NAMED)


def test_an_update_is_handed_in_under_its_digest() -> None:
    taken: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "PUT"
        assert request.url.path.endswith(NAMED.sha256)
        assert request.headers["content-length"] == str(len(MODEL))
        assert "transfer-encoding" not in request.headers
        taken.append(request.read())
        return httpx.Response(200, json={})

    assert transfers(answer).hand_in("run", MODEL) == NAMED
    assert taken == [MODEL]


def test_a_centre_that_cannot_take_it_is_told_as_an_error_of_the_way() -> None:
    with pytest.raises(httpx.HTTPStatusError, match="507"):
        transfers(lambda _: httpx.Response(507)).hand_in("run", MODEL)


def test_an_update_of_a_study_that_has_ended_is_dropped() -> None:
    with pytest.raises(StoppedError):
        transfers(lambda _: httpx.Response(404)).hand_in("run", MODEL)


def test_a_stop_ends_a_transfer_within_a_piece() -> None:
    left = iter([True, True, False])

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        return httpx.Response(200, stream=httpx.ByteStream(MODEL))

    with pytest.raises(StoppedError):
        transfers(answer, lambda: next(left)).fetch("run", NAMED)
    left = iter([True, True, False])
    with pytest.raises(StoppedError):
        transfers(answer, lambda: next(left)).hand_in("run", MODEL)


@pytest.mark.parametrize("status", [429, 500, 503, 507])
def test_an_error_on_the_way_in_is_told_in_words(status: int) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, stream=httpx.ByteStream(b'{"error": "no room"}'))

    with pytest.raises(httpx.HTTPStatusError) as error:
        transfers(answer).fetch("run", NAMED)
    assert "no room" in in_words(error.value, "the centre")


def test_weights_that_no_memory_here_is_for_are_refused_before_they_come() -> None:
    huge = WeightsReference(sha256=NAMED.sha256, length_bytes=MOST_BYTES + 1)
    with pytest.raises(RefusalError, match="too long"):
        transfers(lambda _: pytest.fail("they were asked for")).fetch("run", huge)
