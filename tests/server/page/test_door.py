"""Whoever has not logged in sees nothing of the centre, and changes nothing."""

import logging
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Scope

from common.web import is_ending
from server.federation.home import Home
from server.page import passwords
from server.page.centre import centre_pages
from server.page.door import COOKIE, PERSON, PageDoor, Patience
from server.page.passwords import remove_person, set_password
from tests.server.federation.homes import a_home

BASE = "https://centre.test"
STRANGE_HOSTS = (
    *("elsewhere.test", "a_b.test", "", "centre.test/assets/x?", "centre.test@elsewhere.test"),
    *("centre.test:x", "centre.test#", "centre.test.", "x centre.test"),
)
ORIGIN = {"origin": BASE}
WORD = "four words apart"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(passwords, "COST", 2**4)
    home = a_home(tmp_path / "centre")
    set_password(home, "anna", WORD)
    return home


@pytest.fixture
def scopes() -> list[Scope]:
    """Of the requests that came through."""
    return []


@pytest.fixture
def client(home: Home, clock: Clock, scopes: list[Scope]) -> TestClient:
    async def who(request: Request) -> PlainTextResponse:
        scopes.append(request.scope)
        return PlainTextResponse(f"secret of {request.scope[PERSON]}")

    app = Starlette(
        routes=[Route(path, who, methods=["GET", "POST"]) for path in ("/", "/api/runs")]
    )
    log, pages = logging.getLogger("test"), centre_pages(home)
    door = PageDoor(app, home.path, ["centre.test"], pages, log, Patience(clock))
    return TestClient(door, base_url=BASE, follow_redirects=False)


def enter(client: TestClient, word: str = WORD, name: str = "anna") -> int:
    form = {"name": name, "password": word}
    return client.post("/enter", data=form, headers=ORIGIN).status_code


def test_nothing_is_told_before_the_log_in(client: TestClient) -> None:
    assert client.get("/api/runs").status_code == 401
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/enter")
    assert client.post("/api/runs", headers=ORIGIN).status_code == 401
    assert "secret" not in answer.text + client.get("/enter").text


def test_a_log_in_gives_a_cookie_that_only_this_page_sends(client: TestClient) -> None:
    form = {"name": "anna", "password": WORD}
    answer = client.post("/enter", data=form, headers=ORIGIN)
    told = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303
    assert told.startswith(f"{COOKIE.lower()}=")
    for word in ("secure", "httponly", "samesite=strict", "path=/"):
        assert word in told
    assert "domain" not in told
    assert client.get("/api/runs").text == "secret of anna"
    assert "max-age" in client.get("/").headers["strict-transport-security"]


@pytest.mark.parametrize("headers", [{}, {"origin": "https://elsewhere.test"}, {"origin": "null"}])
def test_another_page_changes_nothing(client: TestClient, headers: dict[str, str]) -> None:
    assert enter(client) == 303
    assert client.post("/api/runs", headers=headers).status_code == 403
    assert client.post("/leave", headers=headers).status_code == 403
    assert client.post("/api/runs", headers=ORIGIN).status_code == 200


def test_nobody_logs_others_in_from_elsewhere(client: TestClient) -> None:
    form = {"name": "anna", "password": WORD}
    assert client.post("/enter", data=form).status_code == 403


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_another_name_of_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/enter", headers={"host": host}).status_code == 421
    assert client.get("/api/runs", headers={"host": host}).status_code == 421
    assert enter(client) == 303
    assert client.get("/", headers={"host": host}).status_code == 421


def test_a_name_is_the_same_in_upper_and_lower_case_and_with_a_port(client: TestClient) -> None:
    for host in ("Centre.Test", "centre.test:8444"):
        assert client.get("/enter", headers={"host": host}).status_code == 200


def test_who_logs_out_is_out_also_with_the_old_cookie(client: TestClient) -> None:
    assert enter(client) == 303
    old = dict(client.cookies)
    assert client.post("/leave", headers=ORIGIN).status_code == 303
    assert client.get("/api/runs").status_code == 401
    client.cookies.update(old)
    assert client.get("/api/runs").status_code == 401


@pytest.mark.parametrize("name", ["anna", "nobody", ""])
def test_wrong_passwords_are_slowed_down_more_each_time(
    client: TestClient, clock: Clock, name: str
) -> None:
    waits = []
    for _ in range(4):
        assert enter(client, "wrong", name) == 403
        # Not even the right one is looked at now.
        answer = client.post("/enter", data={"name": name, "password": WORD}, headers=ORIGIN)
        assert answer.status_code == 429
        waits.append(int(answer.headers["retry-after"]))
        clock.now += waits[-1]
    assert waits == [1, 2, 4, 8]
    assert enter(client) == 303
    assert enter(client, "wrong") == 403
    clock.now += 1
    assert enter(client) == 303


def test_who_has_a_log_in_guesses_no_quicker_and_shuts_nobody_out(
    client: TestClient, home: Home, clock: Clock
) -> None:
    set_password(home, "ben", WORD)
    told = []
    for _ in range(3):
        told += [enter(client, "wrong", "ben"), enter(client)]
        clock.now += 1
    assert told == [403, 303, 403, 303, 429, 303]


def test_guesses_from_many_addresses_are_slowed_down_too(clock: Clock) -> None:
    patience = Patience(clock)
    for number in range(20):
        patience.wrong(f"10.0.{number}", "anna")
    assert patience.left_s("elsewhere", "anna") == 30.0
    assert patience.left_s("10.0.3", "ben") == 0.0
    patience.right("elsewhere", "anna")
    assert patience.left_s("elsewhere", "anna") == 0.0


def test_a_session_ends_with_the_password_and_with_the_person(
    client: TestClient, home: Home
) -> None:
    set_password(home, "ben", WORD)
    assert enter(client) == 303
    set_password(home, "ben", f"{WORD}!")
    assert client.get("/api/runs").status_code == 200
    set_password(home, "anna", f"{WORD}!")
    assert client.get("/api/runs").status_code == 401
    assert client.post("/api/runs", headers=ORIGIN).status_code == 401
    assert enter(client, f"{WORD}!") == 303
    remove_person(home, "anna")
    assert client.get("/api/runs").status_code == 401


@pytest.mark.parametrize("end", ["leave", "password", "idle"])
def test_what_goes_on_and_on_ends_with_the_session(
    client: TestClient, home: Home, scopes: list[Scope], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    assert enter(client) == 303
    assert client.get("/").status_code == 200
    (scope,) = scopes
    assert not is_ending(scope)
    if end == "leave":
        assert client.post("/leave", headers=ORIGIN).status_code == 303
    elif end == "password":
        set_password(home, "anna", f"{WORD}!")
    else:
        monkeypatch.setattr("server.page.door.IDLE_S", -1.0)
    assert is_ending(scope)


def test_what_a_page_asks_by_itself_is_no_use_of_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Clock()
    monkeypatch.setattr("server.page.door.time.monotonic", now)
    assert enter(client) == 303
    for _ in range(4):
        now.now += 1000
        last = client.get("/api/runs").status_code
    assert last == 401
    assert enter(client) == 303
    for _ in range(4):
        now.now += 1000
        last = client.get("/").status_code
    assert last == 200


def test_waits_have_a_limit_and_places_are_forgotten_where_there_are_too_many(
    clock: Clock,
) -> None:
    patience = Patience(clock)
    for _ in range(60):
        patience.wrong("one", "anna")
    assert patience.left_s("one", "anna") == 300.0
    for number in range(5_000):
        patience.wrong("two", f"name {number}")
    assert patience.left_s("one", "anna") == 0.0


def test_a_session_ends_by_itself(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert enter(client) == 303
    monkeypatch.setattr("server.page.door.IDLE_S", -1.0)
    assert client.get("/api/runs").status_code == 401


def test_what_a_person_types_stays_a_text(client: TestClient) -> None:
    answer = client.post(
        "/enter", data={"name": "<script>", "password": "<script>"}, headers=ORIGIN
    )
    assert "<script>" not in answer.text
