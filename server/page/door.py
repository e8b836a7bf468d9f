"""The door of the centre's page: who has logged in comes through, and nobody else.

A session is a cookie that no script reads and no other site's page sends (__Host-, Secure,
HttpOnly, SameSite=Strict); it is kept in this process alone and ends with it, after a while, or
with the person's password. A change must come from a page of this very address. Wrong passwords are
slowed down: for whom one was given waits, twice as long each time, and one password at a time is
looked at.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from logging import Logger
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.pages.serving import Pages, body_of, json_answer
from common.web import ENDING, READING, SECURITY_HEADERS, host_of, is_ending, origin_of
from server.page.passwords import People, is_password

COOKIE = "__Host-wardround"
ENTER, LEAVE = "/enter", "/leave"
OPEN = ("/assets/",)
"""What a browser needs to show the log-in."""
IDLE_S, LONGEST_S = 3600.0, 12 * 3600.0
FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_FOR_ALL_S = 1.0, 300.0, 30.0
"""The last: of a person, wherever wrong passwords came from."""
MOST_WAITING = 10_000
LONGEST_NAME = 64
MOST_FORM_BYTES = 4096
PERSON = "wardround.person"
HEADERS = {
    **SECURITY_HEADERS,
    "Strict-Transport-Security": "max-age=31536000",
    # With no-referrer a browser does not tell from where a form was sent, and _from_here asks that.
    "Referrer-Policy": "same-origin",
}


@dataclass
class Session:
    """Somebody who is in."""

    person: str
    mark: str
    """Of the person's password; who has another is out."""
    begun: float
    used: float
    left: bool = False


@dataclass
class Patience:
    """How long people wait for whom wrong passwords were given; times are a monotonic clock's.

    A person waits at the address that they came from, and a little everywhere, for guesses may
    come from many addresses. Nobody waits for what was given in another's name.
    """

    clock: Callable[[], float] = time.monotonic
    _wrong: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """By address and name, and by name alone: how often in a row, and until when it waits."""

    def left_s(self, place: str, name: str) -> float:
        """Return how long a person has to wait still."""
        until = [self._wrong.get(key, (0, 0.0))[1] for key in ((place, name), ("", name))]
        return max(0.0, max(until) - self.clock())

    def wrong(self, place: str, name: str) -> None:
        """Note a wrong password."""
        for key, longest_s in (((place, name), LONGEST_WAIT_S), (("", name), LONGEST_FOR_ALL_S)):
            times = self._wrong.pop(key, (0, 0.0))[0] + 1
            wait_s = min(FIRST_WAIT_S * 2 ** min(times - 1, 30), longest_s)
            self._wrong[key] = (times, self.clock() + wait_s)
        while len(self._wrong) > MOST_WAITING:
            del self._wrong[next(iter(self._wrong))]

    def right(self, place: str, name: str) -> None:
        """Note a right one."""
        for key in ((place, name), ("", name)):
            self._wrong.pop(key, None)


class PageDoor:
    """An ASGI app in front of the centre's page."""

    def __init__(
        self,
        app: ASGIApp,
        home: Path,
        hosts: Sequence[str],
        pages: Pages,
        log: Logger,
        patience: Patience | None = None,
    ) -> None:
        """hosts: the names and addresses of the certificate; a request to another is refused.

        `*.` before a name stands for one label.
        """
        self._app = app
        self._home = home
        self._hosts = frozenset(host.lower() for host in hosts)
        self._pages = pages
        self._log = log
        self._patience = patience or Patience()
        self._sessions: dict[str, Session] = {}
        self._people = People(home)
        self._one_at_a_time = asyncio.Lock()
        # Of its own: a log-in does not wait for what the pages do.
        self._pool = ThreadPoolExecutor(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through with the person's name in the scope."""
        if scope["type"] != "http":
            return
        answer = await self._answer(Request(scope, receive))
        await (answer or self._app)(scope, receive, _with_headers(send))

    async def _answer(self, request: Request) -> Response | None:
        """Return the answer to a request that does not come through; None where it does."""
        # Not of request.url: that is made of the Host header, and what is served is the scope's.
        if not self._is_ours(host_of(request.scope) or ""):
            return PlainTextResponse("this page answers to the centre's own names alone", 421)
        if request.method not in READING and not _from_here(request):
            return PlainTextResponse("another page asks for a change here", 403)
        path: str = request.scope["path"]
        if path == ENTER:
            return await self._enter(request)
        if path.startswith(OPEN):
            return None
        session = self._session_of(request)
        if session is None:
            if path.startswith("/api/"):
                return json_answer({"error": "log in first"}, 401)
            return RedirectResponse(ENTER, 303)
        if path == LEAVE and request.method == "POST":
            return self._leave(request)
        request.scope[PERSON] = session.person
        over = partial(is_ending, dict(request.scope))
        # What goes on and on ends with the session.
        request.scope[ENDING] = lambda: over() or not self._is_in(session)
        return None

    def _is_ours(self, host: str) -> bool:
        return not self._hosts.isdisjoint({host, f"*.{host.partition('.')[2]}"})

    async def _enter(self, request: Request) -> Response:
        if request.method == "GET":
            return self._pages.answer("enter.html.jinja", why="")
        if request.method != "POST":
            return PlainTextResponse("not so", 405)
        place = request.client.host if request.client else ""
        form = parse_qs((await body_of(request, MOST_FORM_BYTES) or b"").decode(errors="replace"))
        name, password = (form.get(key, [""])[0] for key in ("name", "password"))
        name = name[:LONGEST_NAME]
        async with self._one_at_a_time:
            left_s = self._patience.left_s(place, name)
            if left_s > 0:
                why = f"Too many wrong passwords; try again in {left_s:.0f} s."
                answer = self._pages.answer("enter.html.jinja", 429, why=why)
                answer.headers["Retry-After"] = f"{left_s:.0f}"
                return answer
            # Before: a password that is changed meanwhile ends the session.
            mark = self._people.mark(name)
            right = await asyncio.get_running_loop().run_in_executor(
                self._pool, is_password, self._home, name, password
            )
            (self._patience.right if right else self._patience.wrong)(place, name)
        if not right or mark is None:
            self._log.warning("a wrong password from %s", place)
            why = "The name or the password is not right."
            return self._pages.answer("enter.html.jinja", 403, why=why)
        return self._entered(name, mark, place)

    def _entered(self, name: str, mark: str, place: str) -> Response:
        now = time.monotonic()
        self._sessions = {k: s for k, s in self._sessions.items() if self._is_in(s)}
        key = secrets.token_urlsafe(32)
        self._sessions[key] = Session(name, mark, now, now)
        self._log.info("%s entered from %s", name, place)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, key, path="/", secure=True, httponly=True, samesite="strict")
        return answer

    def _leave(self, request: Request) -> Response:
        session = self._sessions.pop(_cookie(request.headers), None)
        if session is not None:
            session.left = True
        answer = RedirectResponse(ENTER, 303)
        answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return answer

    def _session_of(self, request: Request) -> Session | None:
        session = self._sessions.get(_cookie(request.headers))
        if session is None or not self._is_in(session):
            return None
        if request.method not in READING or not request.scope["path"].startswith("/api/"):
            # What an open page asks by itself is no use of it.
            session.used = time.monotonic()
        return session

    def _is_in(self, session: Session) -> bool:
        now = time.monotonic()
        over = now - session.used > IDLE_S or now - session.begun > LONGEST_S
        return not over and not session.left and self._people.mark(session.person) == session.mark


def _cookie(headers: Headers) -> str:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def _from_here(request: Request) -> bool:
    """Whether a change is asked for by a page of this very address."""
    return request.headers.get("origin") == origin_of(request.scope)


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
