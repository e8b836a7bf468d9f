"""A network that can be cut: a TCP proxy between one site and the centre's door.

It forwards bytes and understands none. Bytes of a cut network are held and arrive when it is
whole again, as TCP sends them again; so this needs no right to change the machine's own network.
"""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

PIECE_BYTES = 16384

Returned = TypeVar("Returned")


@dataclass(frozen=True, kw_only=True)
class Line:
    """How the network is."""

    cut: bool = False
    """Nothing passes, and nobody is told."""
    delay_s: float = 0.0
    """Each piece waits so long."""
    bytes_per_s: float = 0.0
    """A connection's speed in one direction; 0: as fast as it can."""


class Proxy:
    """Listens at a port of loopback and forwards to another; runs in a thread."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._line = Line()
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.passed_bytes = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="proxy")
        self._thread.start()
        self._server = self._called(self._listen())
        self.port = int(self._server.sockets[0].getsockname()[1])

    def set(self, line: Line) -> None:
        """Change the network from now on, on open connections too."""

        async def change() -> None:
            self._line = line
            if line.cut:
                self._whole.clear()
            else:
                self._whole.set()

        self._called(change())

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self.set(replace(self._line, cut=True))

    def heal(self) -> None:
        """Let everything pass, at once."""
        self.set(Line())

    def reset(self) -> None:
        """Break every open connection."""
        self._loop.call_soon_threadsafe(self._break)

    def close(self) -> None:
        """End."""

        def ending() -> None:
            self._server.close()
            self._break()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(ending)
        self._thread.join(5.0)

    def _break(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _called(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        self._writers |= pair
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            for each in pair:
                each.transport.abort()
            self._writers -= pair

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(PIECE_BYTES):
                await self._whole.wait()
                line = self._line
                pause_s = line.delay_s
                if line.bytes_per_s:
                    pause_s += len(piece) / line.bytes_per_s
                if pause_s:
                    await asyncio.sleep(pause_s)
                await self._whole.wait()
                self.passed_bytes += len(piece)
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            else:
                writer.close()
        except (OSError, RuntimeError):
            writer.transport.abort()
