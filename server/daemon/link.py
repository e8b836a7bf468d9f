"""The process of the SuperLink: Flower's own app, behind two doors.

The public one is server/daemon/listener.py. The inner one, on loopback, has the runtime paths
alone, which ask for the SuperExec's secret or a task's token. Flower's control paths have no
authentication, so no door leads to them: what they are for is done in this process
(server/daemon/steward.py).

    python -m server.daemon.link HOME LISTEN INNER_PORT
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.credentials import watch_certificate
from common.daemon_log import daemon_log
from common.supervision import ENVIRONMENT, end_with_supervisor

# Flower reads its switches when it is first imported.
os.environ.update(ENVIRONMENT)

import uvicorn
from fastapi import FastAPI
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.auth import load_superexec_auth_secret
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from server.daemon.desk import Desk
from server.daemon.inner import INNER_HOST, superexec_secret
from server.daemon.listener import (
    App,
    Door,
    Receive,
    Scope,
    Send,
    door_server,
    refuse,
    tls_context,
)
from server.daemon.steward import Steward
from server.daemon.tray import Tray
from server.federation.home import Home, open_home
from server.federation.registry import Registry

RUNTIME_PATHS = "/v1/runtime/"
DATABASE = "superlink.db"
TEND_S = 1.0


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def superlink(home: Home) -> FastAPI:
    """Return Flower's SuperLink on the home's database."""
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=INNER_HOST,
        port=0,
        insecure=True,
        certificates=None,
        superexec_auth_secret=load_superexec_auth_secret(
            secret_file=str(superexec_secret(home.path))
        ),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(home.database / DATABASE),
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def inner(app: App) -> App:
    """Return the app as the processes of this machine see it: its runtime paths alone."""

    async def runtime_alone(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(RUNTIME_PATHS):
            await refuse(send, 404, "there is nothing here")
        else:
            await app(scope, receive, send)

    return runtime_alone


async def serve(home: Home, listen: str, inner_port: int, log: logging.Logger) -> None:
    """Serve until a signal ends it."""
    app: Any = superlink(home)
    context = tls_context(home)
    registry = Registry(home)
    front = Door(app, registry, Desk(home.path), Tray(home.path))
    door = door_server(front, registry, listen, home.settings.port, context)
    inside = Server(
        uvicorn.Config(inner(app), INNER_HOST, inner_port, log_level="warning", access_log=False)
    )
    steward = Steward(home, app.state.linkstate_factory, log)
    renewed = watch_certificate(context, home.server)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    async def tend() -> None:
        while not ended.is_set():
            if renewed():
                log.info("the server's certificate was renewed")
            await asyncio.to_thread(steward.tend)
            await asyncio.sleep(TEND_S)

    tasks = [asyncio.create_task(work) for work in (inside.serve(), door.serve(), tend())]
    await asyncio.wait([*tasks, asyncio.create_task(ended.wait())], return_when="FIRST_COMPLETED")
    inside.should_exit = door.should_exit = True
    ended.set()
    await asyncio.gather(*tasks)


def main() -> None:
    """Run as a part of the server's daemon."""
    end_with_supervisor()
    log = daemon_log("link")
    home, listen, inner_port = sys.argv[1:]
    asyncio.run(serve(open_home(Path(home)), listen, int(inner_port), log))


if __name__ == "__main__":
    main()
