"""The door of the centre's page: who has logged in comes through, and nobody else.

A session is a cookie that no script reads and no other site's page sends (__Host-, Secure,
HttpOnly, SameSite=Strict); it is kept in this process alone and ends with it, or after a while. A
change must come from a page of this very address. Wrong passwords are slowed down: a place that
gave one waits, twice as long each time, and one password at a time is looked at.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.pages.serving import Pages, json_answer
from common.web import READING, SECURITY_HEADERS
from server.page.passwords import is_password

COOKIE = "__Host-wardround"
ENTER, LEAVE = "/enter", "/leave"
OPEN = ("/assets/",)
"""What a browser needs to show the log-in."""
IDLE_S, LONGEST_S = 3600.0, 12 * 3600.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
MOST_PLACES = 10_000
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
    begun: float
    used: float


@dataclass
class Patience:
    """How long places that gave wrong passwords have to wait; all times are a monotonic clock's."""

    clock: Callable[[], float] = time.monotonic
    _wrong: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By address: how often in a row, and until when it waits."""

    def left_s(self, place: str) -> float:
        """Return how long a place has to wait still."""
        return max(0.0, self._wrong.get(place, (0, 0.0))[1] - self.clock())

    def wrong(self, place: str) -> None:
        """Note a wrong password."""
        times = self._wrong.pop(place, (0, 0.0))[0] + 1
        wait_s = min(FIRST_WAIT_S * 2 ** min(times - 1, 30), LONGEST_WAIT_S)
        self._wrong[place] = (times, self.clock() + wait_s)
        while len(self._wrong) > MOST_PLACES:
            del self._wrong[next(iter(self._wrong))]

    def right(self, place: str) -> None:
        """Note a right one."""
        self._wrong.pop(place, None)


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
        """hosts: the names and addresses of the certificate; a request to another is refused."""
        self._app = app
        self._home = home
        self._hosts = frozenset(hosts)
        self._pages = pages
        self._log = log
        self._patience = patience or Patience()
        self._sessions: dict[str, Session] = {}
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through with the person's name in the scope."""
        if scope["type"] != "http":
            return
        answer = await self._answer(Request(scope, receive))
        await (answer or self._app)(scope, receive, _with_headers(send))

    async def _answer(self, request: Request) -> Response | None:
        """Return the answer to a request that does not come through; None where it does."""
        if request.url.hostname not in self._hosts:
            return PlainTextResponse("this page answers to the centre's own names alone", 421)
        if request.method not in READING and not _from_here(request):
            return PlainTextResponse("another page asks for a change here", 403)
        path = request.url.path
        if path == ENTER:
            return await self._enter(request)
        if path.startswith(OPEN):
            return None
        session = self._session_of(request.headers)
        if session is None:
            if path.startswith("/api/"):
                return json_answer({"error": "log in first"}, 401)
            return RedirectResponse(ENTER, 303)
        if path == LEAVE and request.method == "POST":
            return self._leave(request)
        request.scope[PERSON] = session.person
        return None

    async def _enter(self, request: Request) -> Response:
        if request.method == "GET":
            return self._pages.answer("enter.html.jinja", why="")
        if request.method != "POST":
            return PlainTextResponse("not so", 405)
        place = request.client.host if request.client else ""
        form = parse_qs((await _body(request)).decode(errors="replace"))
        name, password = (form.get(key, [""])[0] for key in ("name", "password"))
        async with self._one_at_a_time:
            left_s = self._patience.left_s(place)
            if left_s > 0:
                why = f"Too many wrong passwords; try again in {left_s:.0f} s."
                answer = self._pages.answer("enter.html.jinja", 429, why=why)
                answer.headers["Retry-After"] = f"{left_s:.0f}"
                return answer
            right = await asyncio.to_thread(is_password, self._home, name, password)
            (self._patience.right if right else self._patience.wrong)(place)
        if not right:
            self._log.warning("a wrong password from %s", place)
            why = "The name or the password is not right."
            return self._pages.answer("enter.html.jinja", 403, why=why)
        return self._entered(name, place)

    def _entered(self, name: str, place: str) -> Response:
        now = time.monotonic()
        self._sessions = {k: s for k, s in self._sessions.items() if not _is_over(s, now)}
        key = secrets.token_urlsafe(32)
        self._sessions[key] = Session(name, now, now)
        self._log.info("%s entered from %s", name, place)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, key, path="/", secure=True, httponly=True, samesite="strict")
        return answer

    def _leave(self, request: Request) -> Response:
        self._sessions.pop(_cookie(request.headers), None)
        answer = RedirectResponse(ENTER, 303)
        answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return answer

    def _session_of(self, headers: Headers) -> Session | None:
        session, now = self._sessions.get(_cookie(headers)), time.monotonic()
        if session is None or _is_over(session, now):
            return None
        session.used = now
        return session


def _is_over(session: Session, now: float) -> bool:
    return now - session.used > IDLE_S or now - session.begun > LONGEST_S


def _cookie(headers: Headers) -> str:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def _from_here(request: Request) -> bool:
    """Whether a change is asked for by a page of this very address."""
    return request.headers.get("origin") == f"{request.url.scheme}://{request.url.netloc}"


async def _body(request: Request) -> bytes:
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_FORM_BYTES:
            return b""
    return raw


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
