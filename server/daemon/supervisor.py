"""The daemon of the centre: keeps the SuperLink and the SuperExec running, and tells how it is.

    SuperLink   server/daemon/link.py: the public door, the sites' nodes, the studies' runs
    SuperExec   Flower's: starts the process of each study's rounds (server/app.py)
    tracker     server/daemon/tracker.py: tells of studies elsewhere, where tracking.yaml says so

Everything is in the home folder, so that a start after a kill goes on where the last one ended.
"""

import logging
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime

from common.certificates import WARN_DAYS, days_until, read_certificate
from common.daemon_log import daemon_log
from common.locks import LOOKED_AT_S, held
from common.supervision import OWNER_ALONE, Keeper, Part, python_module
from server.daemon.health import HealthServer
from server.daemon.inner import INNER_HOST, superexec_secret
from server.daemon.metrics import serve_metrics
from server.daemon.tracker import tracking_of
from server.federation.home import Home
from server.studies import REAL, RUNS_FOLDER

TICK_S = 0.2
TASK_POLL_S = "1.0"
WARN_EVERY_S = 24 * 3600.0


def parts_of(home: Home, listen: str, inner_port: int) -> list[Part]:
    """Return the processes of the centre, the first one first."""
    flower = str(home.path / "flower")
    told = Part(name="tracker", command=python_module("server.daemon.tracker", str(home.path)))
    return [
        Part(
            name="link",
            command=python_module("server.daemon.link", str(home.path), listen, str(inner_port)),
            environment={"FLWR_HOME": flower},
        ),
        Part(
            name="exec",
            command=python_module(
                "server.daemon.executor",
                "--insecure",
                "--runtime-api-address",
                f"{INNER_HOST}:{inner_port}",
                "--superexec-auth-secret-file",
                str(superexec_secret(home.path)),
                "--parent-pid",
                str(os.getpid()),
            ),
            environment={
                "FLWR_HOME": flower,
                "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_POLL_S,
                RUNS_FOLDER: str(home.runs.resolve()),
                REAL: "1",
            },
        ),
        *([told] if tracking_of(home) is not None else []),
    ]


def run_daemon(home: Home, listen: str, health_port: int, metrics_port: int) -> None:
    """Keep the centre running until SIGTERM or Ctrl-C.

    listen: address of the public door. The two ports are on loopback.

    Raises:
        ValueError: another daemon runs on this home, or a port is taken.
    """
    os.umask(OWNER_ALONE)
    log = daemon_log("server", home.path / "logs" / "server.jsonl")
    with ExitStack() as stack:
        stack.enter_context(held(home.path / ".daemon.lock", "serves this federation", LOOKED_AT_S))
        keeper = Keeper(parts_of(home, listen, _free_port()), log)
        stack.callback(keeper.stop)
        health = HealthServer(f"{INNER_HOST}:{health_port}")
        stack.callback(health.stop)
        stack.callback(serve_metrics(home, INNER_HOST, metrics_port, keeper.restarts))
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        log.info(
            "listening at %s:%d; health at port %d, metrics at port %d",
            listen,
            home.settings.port,
            health_port,
            metrics_port,
        )
        warned_at = 0.0
        while not ended.wait(TICK_S):
            keeper.tend()
            health.tell({part: keeper.pid_of(part) is not None for part in ("link", "exec")})
            if time.monotonic() - warned_at > WARN_EVERY_S or not warned_at:
                _warn(home, log)
                warned_at = time.monotonic()
        log.info("ending")


def _warn(home: Home, log: logging.Logger) -> None:
    end = read_certificate(home.server.certificate).not_valid_after_utc
    days = days_until(end, datetime.now(UTC))
    if days < WARN_DAYS:
        log.warning(
            "the server's certificate ends in %d days; run wardround-server rotate --server", days
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((INNER_HOST, 0))
        return int(free.getsockname()[1])
