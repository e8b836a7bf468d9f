"""Pages for one person at this machine: on loopback alone, behind a token, with strict headers.

The token stands in the URL that is printed once. The browser gets it back as a cookie and is sent
on, so that it stays in no history; a program sends `Authorization: Bearer TOKEN`. Imports no torch.
"""

import re
import secrets
import signal
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
TOKEN_BYTES, NAME_BYTES = 32, 16
PARAMETER = "token"
OWN_NAMES = frozenset({LOOPBACK, "localhost"})
ENDING = "wardround.ending"
END_WITHIN_S = 5
"""What is not answered by then is cut."""
READING = frozenset({"GET", "HEAD"})
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)
SECURITY_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With no-referrer a browser hides the origin of a page's own forms, and they would be refused.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Nothing is loaded from elsewhere, no script or style stands in a page, nothing is kept."""


def new_token() -> str:
    """Return a token that nobody can guess: 256 bits, fit for a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def guarded(app: ASGIApp, token: str, names: Collection[str] = OWN_NAMES) -> ASGIApp:
    """Return the app behind the token, with SECURITY_HEADERS on every answer.

    names: hosts that it answers to.

    Answers 401 without the token, compared in constant time; 421 to another host's name, by which
    a page from elsewhere would reach this one (DNS rebinding); 403 to a change that another page
    asks for. Only HTTP comes through.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = _refused(scope, token, names)
        await (refused or app)(scope, receive, _with_headers(send))

    return guard


def own_name() -> str:
    """Return a host for one page: a name below localhost that nobody can guess, or LOOPBACK.

    Such a name is this machine's (RFC 6761, section 6.3), and no other page has it: cookies know no
    ports, and by 127.0.0.1 what another user serves here would be sent this page's. LOOPBACK where
    this machine's resolver does not know such names, so that the printed URL opens there too.
    """
    name = f"{secrets.token_hex(NAME_BYTES)}.localhost"
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return LOOPBACK
    return name


def serve(
    app: ASGIApp, port: int, say: Callable[[str], None], path: str = "/", name: str | None = None
) -> None:
    """Serve the app behind a new token until Ctrl-C; `say` gets the one URL that opens it.

    port: 0 takes a free one. path: where the URL leads. name: its host; None: own_name().

    Raises:
        OSError: another program has the port.
    """
    token, host = new_token(), name or own_name()
    with listening(LOOPBACK, port) as listener:
        say(f"http://{host}:{listener.getsockname()[1]}{path}?{PARAMETER}={token}")
        run(guarded(app, token, [host, *OWN_NAMES]), [listener])


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Give a socket that listens: a browser that is quicker than the server waits for it.

    Raises:
        OSError: another program has the port, or the address is not this machine's.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(
                f"port {port} of {host} cannot be used ({error.strerror}); give another --port"
            ) from error
        listener.listen()
        yield listener


def run(app: ASGIApp, sockets: list[socket.socket], **settings: Any) -> None:  # noqa: ANN401 - uvicorn's
    """Serve an app on sockets until SIGTERM or Ctrl-C; who follows something learns of the end.

    settings: more of uvicorn's, as those of TLS.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
    """
    server: _Server

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ENDING] = lambda: server.should_exit
        await app(scope, receive, send)

    config = uvicorn.Config(
        told,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        # Who asks is who is connected; nothing stands before this and may say otherwise.
        proxy_headers=False,
        timeout_graceful_shutdown=END_WITHIN_S,
        **settings,
    )
    server = _Server(config)
    server.run(sockets=sockets)
    if server.interrupted:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """Remembers Ctrl-C.

    uvicorn raises it again once it has ended, which is lost in a process whose parent ignored it (a
    job in the background of a script).
    """

    interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.interrupted = self.interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)


def host_of(scope: Scope) -> str | None:
    """Return the host, in lower case and without the port, that a request names in its header.

    None where it names none, several, or what is no host: URLs that are made of such a header have
    other paths and hosts than those that are served.
    """
    told = Headers(scope=scope).getlist("host")
    found = _HOST.fullmatch(told[0]) if len(told) == 1 else None
    return None if found is None else found[1].strip("[]").lower()


def origin_of(scope: Scope) -> str:
    """Return the origin of a page that a request came to, as a browser tells it."""
    return f"{scope['scheme']}://{Headers(scope=scope).get('host', '').lower()}"


def is_ending(scope: Scope) -> bool:
    """Whether the server is to end: an answer that goes on and on ends then."""
    ending: Callable[[], bool] = scope.get(ENDING, lambda: False)
    return ending()


def _refused(scope: Scope, token: str, names: Collection[str]) -> Response | None:
    """Return the answer to a request that does not come through; None where it does."""
    if host_of(scope) not in names:
        return PlainTextResponse("this page answers to its own address alone", 421)
    headers, url = Headers(scope=scope), URL(scope=scope)
    asked = dict(pair.partition("=")[::2] for pair in url.query.split("&"))
    if _equal(asked.get(PARAMETER), token) and scope["method"] in READING:
        return _entered(url, token)
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    # Cookies know no ports, so each of two pages on one machine has a name of its own.
    cookie = cookie_parser(headers.get("cookie", "")).get(_cookie_name(url))
    if not _equal(bearer, token) and not _equal(cookie, token):
        return PlainTextResponse("open this page with the URL that was printed", 401)
    origin = headers.get("origin")
    if scope["method"] not in READING and origin not in (None, origin_of(scope)):
        return PlainTextResponse("another page asks for a change here", 403)
    return None


def _equal(told: str | None, token: str) -> bool:
    return told is not None and secrets.compare_digest(told.encode(), token.encode())


def _entered(url: URL, token: str) -> Response:
    answer = RedirectResponse(str(url.remove_query_params(PARAMETER)), 303)
    answer.set_cookie(_cookie_name(url), token, httponly=True, samesite="lax")
    return answer


def _cookie_name(url: URL) -> str:
    return f"wardround-{url.port or 80}"


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                # An answer may be stricter; a document with its styles inside has its own policy.
                headers.setdefault(name, value)
        await send(message)

    return sent
