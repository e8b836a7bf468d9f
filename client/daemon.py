"""The daemon of a hospital: keeps the trainer and the node running.

    trainer   client/service.py: the images, the ledger, the GPU; no network where the kernel lets
              us take it away
    node      client/node.py: the network; no image, no torch

Two containers, or two services of two users, keep them further apart (docs/deploy.md).
"""

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from client.enrolment import membership
from client.site import load_site
from common.certificates import WARN_DAYS
from common.daemon_log import daemon_log
from common.locks import LOOKED_AT_S, held
from common.supervision import OWNER_ALONE, Keeper, Part, python_module

TICK_S = 0.2
WARN_EVERY_S = 24 * 3600.0
WITHOUT_NETWORK = ("unshare", "--user", "--net", "--map-current-user")


def trainer_part(site_yaml: Path, network: bool = False) -> Part:
    """Return the trainer's process; without network, unless it cannot be taken away."""
    command = python_module("client.cli", "trainer", "--site", str(site_yaml))
    return Part(name="trainer", command=command if network else [*WITHOUT_NETWORK, *command])


def node_part(state: Path, socket: Path) -> Part:
    """Return the node's process."""
    return Part(name="node", command=python_module("client.node", str(state), str(socket)))


def can_take_network_away() -> bool:
    """Whether this kernel lets an ordinary process start another one without a network."""
    if shutil.which(WITHOUT_NETWORK[0]) is None:
        return False
    return subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode == 0


def run_daemon(site_yaml: Path, with_trainer: bool) -> None:
    """Keep a site running until SIGTERM or Ctrl-C.

    with_trainer: false where the trainer is another user's service, or another container.

    Raises:
        CertificateError: the site has not joined a federation.
        ValueError: another daemon runs this site.
    """
    os.umask(OWNER_ALONE)
    site = load_site(site_yaml)
    state = site.state_path
    joined = membership(state).centre.site
    if joined != site.name:
        raise ValueError(
            f"{site_yaml} has name: {site.name}, but the site joined as {joined}; "
            f"set name: {joined}"
        )
    log = daemon_log("site", state / "logs" / "site.jsonl")
    parts = [node_part(state, site.socket_path)]
    if with_trainer:
        alone = can_take_network_away()
        if not alone:
            log.warning("the trainer keeps its network: this kernel does not let us take it away")
        parts.insert(0, trainer_part(site_yaml, network=not alone))
    with ExitStack() as stack:
        stack.enter_context(held(state / "daemon.lock", "runs this site", LOOKED_AT_S))
        keeper = Keeper(parts, log)
        stack.callback(keeper.stop)
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        warned_at = 0.0
        while not ended.wait(TICK_S):
            keeper.tend()
            if time.monotonic() - warned_at > WARN_EVERY_S or not warned_at:
                _warn(state, log)
                warned_at = time.monotonic()
        log.info("ending")


def _warn(state: Path, log: logging.Logger) -> None:
    days = membership(state).days_left(datetime.now(UTC))
    if days < WARN_DAYS:
        log.warning(
            "this site's certificate ends in %d days; ask the centre for a new one "
            "(wardround-server rotate), then wardround-site join",
            days,
        )
