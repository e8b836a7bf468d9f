"""An app served in this process, for tests that need a socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from common.web import ENDING


def dialled(printed: str) -> tuple[str, dict[str, str]]:
    """Return a printed address for a client that knows no names below localhost, and its Host."""
    host = urlsplit(printed).netloc
    return printed.replace(host, f"127.0.0.1:{host.rpartition(':')[2]}"), {"host": host}


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve an app; give its address."""
    server: uvicorn.Server

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ENDING] = lambda: server.should_exit
        await app(scope, receive, send)

    config = uvicorn.Config(told, port=0, log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
