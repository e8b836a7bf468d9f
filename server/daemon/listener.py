"""The one public door: TLS 1.3, a client certificate, the fleet paths and nothing else.

A request is let through if its certificate is one that this federation admitted and has not
revoked, asked anew at every request, and if it signs as the node of the same key. So one hospital
cannot speak as another, and a revoked one is out at once, on open connections too.
"""

import asyncio
import json
import ssl
from base64 import b64decode
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.daemon.desk import Desk
from server.daemon.tray import PREFIX, Tray
from server.federation.home import Home
from server.federation.registry import Registry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

WORD_PATH = "/v1/wardround/word"
FLEET_PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
FIRST_REQUEST_S = 20.0
KEPT_S = 60
"""An idle connection is kept: a handshake costs more than most requests."""
MOST_CONNECTIONS, MOST_OF_A_SITE = 1000, 16
MOST_WORD_BYTES = 4096
MOST_BODY_BYTES = 4 * 2**20
"""Of a message; weights lie beside it."""
PEER = "wardround.peer"


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection."""

    serial: int
    public_key_der: bytes


class PeerProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, which tells the app whose certificate the connection has.

    A connection whose certificate is not admitted ends at once, and so does one without a request:
    both would hold a place.
    """

    registry: Registry
    open: Counter[int]
    """Connections of each certificate."""
    _serial: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the peer's certificate once; TLS has verified its chain and its dates."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        raw = tls.getpeercert(binary_form=True) if tls is not None else None
        peer, app = _peer_of(raw) if raw else None, self.app
        if peer is None or self.registry.site_of(peer.serial, peer.public_key_der) is None:
            transport.close()
            return
        self._serial = peer.serial
        self.open[peer.serial] += 1
        if self.open[peer.serial] > MOST_OF_A_SITE:
            transport.close()
            return
        asked = False

        async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal asked
            asked = True
            scope[PEER] = peer
            await app(scope, receive, send)

        self.app = with_peer

        def close_unasked() -> None:
            if not asked:
                transport.close()

        self.loop.call_later(FIRST_REQUEST_S, close_unasked)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more."""
        super().connection_lost(exc)
        if self._serial is not None:
            self.open[self._serial] -= 1
            self._serial = None


def _peer_of(certificate_der: bytes) -> Peer:
    certificate = x509.load_der_x509_certificate(certificate_der)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Peer(certificate.serial_number, key)


class Door:
    """The public ASGI app in front of the SuperLink."""

    def __init__(self, superlink: App, registry: Registry, desk: Desk, tray: Tray) -> None:
        self._superlink = superlink
        self._registry = registry
        self._desk = desk
        self._tray = tray

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request of an admitted site through; answer 403 or 404 to all else."""
        if scope["type"] != "http":
            return
        site = self._site_of(scope)
        if site is None:
            await refuse(send, 403, "this certificate is not admitted here")
        elif scope["path"] == WORD_PATH and scope["method"] == "POST":
            await self._word(site, receive, send)
        elif scope["path"].startswith(PREFIX):
            length = _length(scope)
            await self._tray.answer(site, scope["method"], scope["path"], length, receive, send)
        elif scope["path"] not in FLEET_PATHS:
            await refuse(send, 404, "there is nothing here")
        elif not _fits(_length(scope)):
            await refuse(send, 413, "a request to the fleet may have 4 MiB")
        elif not _signs_as(scope):
            await refuse(send, 403, "the node's key is not the certificate's")
        else:
            await self._superlink(scope, receive, send)

    def _site_of(self, scope: Scope) -> str | None:
        peer: Peer | None = scope.get(PEER)
        return (
            self._registry.site_of(peer.serial, peer.public_key_der, datetime.now(UTC))
            if peer
            else None
        )

    async def _word(self, site: str, receive: Receive, send: Send) -> None:
        raw = b""
        while len(raw) <= MOST_WORD_BYTES:
            part = await receive()
            if part["type"] != "http.request":
                return
            raw += part.get("body", b"")
            if not part.get("more_body"):
                break
        status, body = await asyncio.to_thread(self._desk.word, site, raw[: MOST_WORD_BYTES + 1])
        await _answer(send, status, body)


def _signs_as(scope: Scope) -> bool:
    """Whether the node key that the request is signed with is the certificate's."""
    peer: Peer = scope[PEER]
    name = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
    told = [value for header, value in scope["headers"] if header == name]
    if len(told) != 1:
        return False
    try:
        key = bytes_to_public_key(b64decode(told[0], validate=True))
        return (
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == peer.public_key_der
        )
    except (ValueError, Base64Error, AttributeError):
        return False


def _length(scope: Scope) -> int | None:
    """Return the length of a request's body; None where it is not told."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    # A body in chunks has no length, whatever stands beside it.
    chunked = b"transfer-encoding" in headers
    return int(length) if length.isdigit() and not chunked else None


def _fits(length: int | None) -> bool:
    return length is not None and length <= MOST_BODY_BYTES


async def refuse(send: Send, status: int, why: str) -> None:
    """Answer with a status and the reason."""
    await _answer(send, status, json.dumps({"error": why}).encode())


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 403:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def tls_context(home: Home) -> ssl.SSLContext:
    """Return the listener's TLS: 1.3 alone, and no client without a certificate of our CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=home.ca_certificate)
    home.server.load_into(context)
    return context


def door_server(
    door: App, registry: Registry, host: str, port: int, context: ssl.SSLContext
) -> uvicorn.Server:
    """Return the public server; it has not been started."""
    protocol = type("PeerProtocol", (PeerProtocol,), {"registry": registry, "open": Counter()})
    config = uvicorn.Config(
        door,
        host=host,
        port=port,
        http=protocol,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEPT_S,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        # uvicorn's own context does not ask for TLS 1.3 alone, and cannot be renewed.
        ssl_context_factory=lambda config, default: context,
    )
    return uvicorn.Server(config)
