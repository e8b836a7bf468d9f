"""What the listener answers itself: the weights of a study, given out and taken in as files.

    GET /v1/wardround/weights/RUN/SHA256    what a round begins with
    PUT /v1/wardround/weights/RUN/SHA256    what a site hands in

A site reaches the studies that it was agreed for, and of what is handed in its own alone. Pieces
go from the connection to the disk and back, so the size of a model costs this process nothing.
"""

import asyncio
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from common.secret_files import sync_folder
from server.studies import StudyRun
from server.weights import DOWN, FOLDER, LONGEST, UP

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/v1/wardround/weights/"
_PATH = re.compile(re.escape(PREFIX) + r"([A-Za-z0-9_][\w.-]{0,199})/([0-9a-f]{64})")
PIECE_BYTES = 2**18
"""Of each transfer so much is in memory, a few times over."""
MOST_AT_ONCE = 2
"""Transfers of one site."""
MOST_KEPT = 2
"""Files that a site handed in and nobody has used: the newest of them."""
MORE_BYTES = 2**20
"""By so much what is handed in may be longer than what was given out."""
OPEN = ("running", "stopping")
IDLE_S = 60.0
"""A transfer in which nothing moves for so long has ended."""


class AnswerError(Exception):
    """What is answered instead of weights: an HTTP status and the reason."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Tray:
    """Gives and takes the weights of the studies of a home."""

    def __init__(self, home: Path) -> None:
        self._runs = home / "runs"
        self._at_once: Counter[str] = Counter()

    async def answer(
        self, site: str, method: str, path: str, length: int | None, receive: Receive, send: Send
    ) -> None:
        """Answer an admitted site. length: of the request's body, None where it is not told."""
        try:
            if self._at_once[site] >= MOST_AT_ONCE:
                raise AnswerError(429, f"a site may have {MOST_AT_ONCE} transfers at once")
            self._at_once[site] += 1
            try:
                folder, sha256 = await asyncio.to_thread(self._folder, site, path)
                if method == "GET":
                    await _give(folder / DOWN / sha256, send)
                elif method == "PUT":
                    most = await asyncio.to_thread(_most_bytes, folder / DOWN)
                    if length is None or not 0 < length <= most:
                        raise AnswerError(413, f"an update of this study has {most} bytes at most")
                    await _take(folder / UP / site, sha256, length, receive)
                    await _told(send, 200, {})
                else:
                    raise AnswerError(405, "weights are read with GET and handed in with PUT")
            finally:
                self._at_once[site] -= 1
        except AnswerError as error:
            await _told(send, error.status, {"error": str(error)})

    def _folder(self, site: str, path: str) -> tuple[Path, str]:
        found = _PATH.fullmatch(path)
        run = StudyRun(self._runs / found[1]) if found else None
        try:
            known = run is not None and site in run.asked.sites and run.status()[0] in OPEN
        except (OSError, ValueError):
            known = False
        if not known or run is None or found is None:
            raise AnswerError(404, "there are no such weights")
        return run.folder / FOLDER, found[2]


def _most_bytes(down: Path) -> int:
    """Return the most that an update may be: the model as it travels whole, and some more."""
    try:
        return int((down.parent / LONGEST).read_text()) + MORE_BYTES
    except (OSError, ValueError):
        raise AnswerError(404, "this study takes no weights now") from None


async def _give(path: Path, send: Send) -> None:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError:
        raise AnswerError(404, "there are no such weights") from None
    with file:
        length = os.fstat(file.fileno()).st_size
        await send(_start(200, b"application/octet-stream", length))
        while length > 0:
            piece = await asyncio.to_thread(file.read, PIECE_BYTES)
            length -= len(piece)
            part = {"type": "http.response.body", "body": piece, "more_body": length > 0}
            await asyncio.wait_for(send(part), IDLE_S)


async def _take(folder: Path, sha256: str, length: int, receive: Receive) -> None:
    path = folder / sha256
    if path.exists():
        async for _ in _pieces(receive):
            pass
        return
    unfinished = folder / f".{sha256}.{os.urandom(8).hex()}"
    digest, written = hashlib.sha256(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("xb") as file:

            def keep(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            async for piece in _pieces(receive):
                written += len(piece)
                if written > length:
                    break
                await asyncio.to_thread(keep, piece)
        if written != length or digest.hexdigest() != sha256:
            raise AnswerError(400, "the weights are not what they are called")
        await asyncio.to_thread(_settled, unfinished, path)
        _keep_newest(folder)
    except OSError as error:
        raise AnswerError(507, f"the centre cannot keep the weights ({error.strerror})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _settled(unfinished: Path, path: Path) -> None:
    """Give a file its name once it is on the disk."""
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(path)
    sync_folder(path.parent)


def _keep_newest(folder: Path) -> None:
    whole = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in sorted(whole, key=lambda path: path.stat().st_mtime_ns)[:-MOST_KEPT]:
        path.unlink(missing_ok=True)


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """Yield a request's body in pieces of about PIECE_BYTES."""
    gathered = bytearray()
    more = True
    while more:
        try:
            part = await asyncio.wait_for(receive(), IDLE_S)
        except TimeoutError:
            raise AnswerError(408, f"nothing came for {IDLE_S:g} s") from None
        if part["type"] != "http.request":
            raise AnswerError(400, "the connection ended before the weights did")
        gathered += part.get("body", b"")
        more = bool(part.get("more_body"))
        if len(gathered) >= PIECE_BYTES or not more:
            yield bytes(gathered)
            gathered.clear()


def _start(status: int, kind: bytes, length: int) -> MutableMapping[str, Any]:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _told(send: Send, status: int, what: object) -> None:
    body = json.dumps(what).encode()
    await send(_start(status, b"application/json", len(body)))
    await send({"type": "http.response.body", "body": body})
