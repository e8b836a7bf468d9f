"""Whoever has not the printed URL gets nothing from a page of this machine."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from common.web import LOOPBACK, SECURITY_HEADERS, guarded, new_token, own_name
from tests.browser import IN_A_BROWSER, chromium, opened
from tests.served import dialled, served

TOKEN = "the-token"
BASE = "http://127.0.0.1:8000"


async def _secret(_: Request) -> PlainTextResponse:
    return PlainTextResponse("secret")


def _client(base: str = BASE) -> TestClient:
    app = Starlette(routes=[Route("/case", _secret, methods=["GET", "POST"])])
    return TestClient(guarded(app, TOKEN), base_url=base)


@pytest.mark.parametrize("query", ["", "?token=", "?token=the-toke", "?token=the-token2", "?t=ü"])
def test_without_the_token_there_is_only_401(query: str) -> None:
    answer = _client().get(f"/case{query}")
    assert (answer.status_code, "secret" in answer.text) == (401, False)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"cookie": "wardround-8000=wrong"},
        {"cookie": "wardround-9000=the-token"},
        {"cookie": "garbage;;=;"},
    ],
)
def test_a_wrong_cookie_or_header_is_no_token(headers: dict[str, str]) -> None:
    assert _client().get("/case", headers=headers).status_code == 401


def test_the_printed_url_gives_a_cookie_and_leaves_no_token_in_the_address() -> None:
    client = _client()
    answer = client.get("/case?a=1&token=the-token", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{BASE}/case?a=1"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert client.get("/case").text == "secret"


def test_a_program_sends_the_token_as_a_bearer() -> None:
    assert _client().get("/case", headers={"authorization": f"Bearer {TOKEN}"}).text == "secret"


@pytest.mark.parametrize("path", ["/case", "/case?token=the-token", "/nothing"])
def test_every_answer_has_the_security_headers(path: str) -> None:
    headers = _client().get(path).headers
    assert {name: headers[name] for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "a_b.test", "", "127.0.0.1/x?", "x.localhost", "127.0.0.1.x"]
)
def test_another_name_of_this_machine_reaches_nothing(host: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "host": host}
    answer = _client().get("/case", headers=headers)
    assert (answer.status_code, "secret" in answer.text) == (421, False)


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 200), (BASE, 200), ("http://127.0.0.1:9000", 403), ("null", 403)]
)
def test_another_page_may_change_nothing(origin: str | None, status: int) -> None:
    client = _client()
    client.get("/case?token=the-token")
    headers = {} if origin is None else {"origin": origin}
    assert client.post("/case", headers=headers).status_code == status


def test_two_tokens_differ() -> None:
    assert new_token() != new_token()


SERVER = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from common.web import serve

async def here(request):
    return PlainTextResponse("here")

pages = Starlette(routes=[Route("/", here)])
serve(pages, 0, lambda url: print(url, flush=True), name="a-name-of-its-own.localhost")
"""


def test_a_page_has_a_name_of_its_own_or_that_of_this_machine() -> None:
    name = own_name()
    assert name == LOOPBACK or (name.endswith(".localhost") and name != own_name())
    assert socket.getaddrinfo(name, None)


@pytest.fixture
def printed() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        yield it.stdout.readline().strip()
        it.send_signal(signal.SIGINT)
        it.wait(10)


def test_the_printed_url_opens_the_page_of_a_real_process(printed: str) -> None:
    url, headers = dialled(printed)
    with httpx.Client(headers=headers, trust_env=False) as client:
        assert client.get(url.partition("?")[0]).status_code == 401
        answer = client.get(url)
        assert answer.headers["location"] == printed.partition("?")[0]
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert client.get(url.partition("?")[0], headers={"cookie": cookie}).text == "here"


@IN_A_BROWSER
def test_what_another_user_serves_on_this_machine_is_not_sent_the_cookie(printed: str) -> None:
    got: list[str | None] = []

    async def other(request: Request) -> PlainTextResponse:
        got.append(request.headers.get("cookie"))
        return PlainTextResponse("another page")

    with served(Starlette(routes=[Route("/", other)])) as address, chromium() as browser:
        page, _ = opened(browser, printed)
        assert page.inner_text("body") == "here"
        page.goto(address)
        page.goto(address.replace("127.0.0.1", "localhost"))
    assert got == [None, None]
