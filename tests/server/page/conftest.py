"""Runs to look at: a folder of them, and a server of a page in this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from common.files import write_json
from common.pages.serving import asset_routes
from common.web import ENDING
from server.page.app import run_pages
from tests.builders import numbers_app
from tests.server.test_run import PATIENTS, run


def begun(folder: Path) -> Path:
    """Make the folder of a run."""
    write_json(folder / "run.json", {"overrides": []})
    return folder


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run."""
    folder = tmp_path_factory.mktemp("runs")
    run(begun(folder / "done"), numbers_app(PATIENTS), "rounds=3")
    return folder


def app_of(folder: Path) -> Starlette:
    """Return the pages of a folder of runs, without a guard."""
    return Starlette(routes=[*run_pages(folder), *asset_routes()])


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
