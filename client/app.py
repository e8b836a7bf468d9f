"""The courier: a Flower message in, the trainer's answer out. Imports no torch, sees no data.

It sends what the site's gate released and nothing else. Whatever goes wrong at the site, the
server reads a code and a sentence that was written for it; the full error stays in the site's log.
"""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.log import site_log
from client.refusals import refused
from client.remote import WAIT_S, OnProgress, RemoteTrainer, go_on
from common.bundle import code_free_bundle
from common.contract import RefusalError, Released, Request
from common.durable import simulated
from common.framing import Arrays
from common.messages import WEIGHTS, pack_answer, reply, unpack_request, unpack_weights

SITE_CONFIG = "site-config"
SITES_FOLDER = "WARDROUND_SITES"
SOCKET, SOCKET_WAIT_S, SITE_NAME = "trainer-socket", "trainer-wait-s", "site-name"
"""Node settings of a real hospital: where its trainer listens, for how long one that is starting
again is waited for, and what the site is called while it does not answer."""

LISTENER: ContextVar[OnProgress] = ContextVar("listener", default=go_on)
"""Who hears the steps of a trainer behind a socket, and says whether to go on. Set by the node loop
in the thread that calls the app."""

app = ClientApp()
_log = logging.getLogger(__name__)


def refuse(message: Message, site: str, error: Exception) -> Message:
    """Answer a message that does not reach the trainer."""
    return reply(pack_answer(refused(_log, site, error)), message)


def other_bundle(sha256: str) -> RefusalError:
    """Return what is wrong with a run whose bundle is not the one that is installed here."""
    return RefusalError(
        "bundle",
        f"the server runs the app bundle {sha256[:12]}, this site takes "
        f"{code_free_bundle().sha256[:12]} alone; install the same version of wardround",
    )


def turned_down(message: Message, request: Request, context: Context) -> Message | None:
    """Return the trainer's refusal of a message whose weights are not here yet, or None.

    Raises:
        RefusalError: the trainer does not answer.
    """
    released = _remote(context).consent(request)
    return None if released is None else reply(pack_answer(released), message)


class SomeTrainer(Protocol):
    """A trainer in this process, or behind a socket."""

    def describe(self, request: Request) -> Released:
        """Return what the server may know before the first round."""
        ...

    def train(self, request: Request, weights: Arrays) -> Released:
        """Return the update of one round."""
        ...

    def evaluate(self, request: Request, weights: Arrays) -> Released:
        """Return the incoming model's estimates."""
        ...


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Answer who this site is; its data has been read and checked by then."""

    def work(trainer: SomeTrainer) -> Released:
        return trainer.describe(unpack_request(message.content))

    return _answered(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with this site's update of the incoming model."""

    def work(trainer: SomeTrainer) -> Released:
        request, weights = unpack_request(message.content), _weights(message, context)
        return trainer.train(request, weights)

    return _answered(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with the incoming model's estimates on the held-out patients."""

    def work(trainer: SomeTrainer) -> Released:
        request, weights = unpack_request(message.content), _weights(message, context)
        return trainer.evaluate(request, weights)

    return _answered(message, context, work)


def site_config(context: Context) -> Path:
    """Return where this node's site.yaml lies: as named, or by its place in a simulation."""
    named = context.node_config.get(SITE_CONFIG)
    if named is not None:
        return Path(str(named))
    sites = Path(os.environ[SITES_FOLDER])
    # As names: each message lists all, and to sort a thousand paths takes milliseconds.
    folders = sorted(os.listdir(sites))
    return sites / folders[int(context.node_config["partition-id"])] / "site.yaml"


def _answered(
    message: Message, context: Context, work: Callable[[SomeTrainer], Released]
) -> Message:
    log, name = logging.getLogger(__name__), None
    try:
        if SOCKET in context.node_config:
            named = context.node_config.get(SITE_NAME)
            name = None if named is None else str(named)
            released = work(_remote(context))
        else:
            # Imported here, not above: the courier of a real site never loads torch.
            from client.trainer import trainer_at

            path = site_config(context)
            log = site_log(path.parent)
            trainer = trainer_at(path)
            name = trainer.site.name
            with nullcontext() if SITE_CONFIG in context.node_config else simulated():
                released = work(trainer)
    except Exception as error:
        released = refused(log, name, error)
    return reply(pack_answer(released), message)


def _remote(context: Context) -> RemoteTrainer:
    wait_s = float(context.node_config.get(SOCKET_WAIT_S, WAIT_S))
    return RemoteTrainer(Path(str(context.node_config[SOCKET])), wait_s, LISTENER.get())


def _weights(message: Message, context: Context) -> Arrays:
    weights = unpack_weights(message.content)
    if SOCKET in context.node_config:
        # The message has a second copy, which nobody needs any more; in a simulation others do.
        message.content.pop(WEIGHTS, None)
    return weights
