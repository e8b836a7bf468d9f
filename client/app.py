"""The courier: a Flower message in, the trainer's answer out. Imports no torch, sees no data.

It sends what the site's gate released and nothing else. Whatever goes wrong at the site, the
server reads a code and a sentence that was written for it; the full error stays in the site's log.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.log import site_log
from client.privacy.gate import leave_refusal
from common.contract import RefusalError, Released
from common.messages import MessageError, pack_answer, reply, unpack_request, unpack_weights

if TYPE_CHECKING:
    from client.trainer import Trainer

SITE_CONFIG = "site-config"
SITES_FOLDER = "WARDROUND_SITES"

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Answer who this site is; its data has been read and checked by then."""

    def work(trainer: "Trainer") -> Released:
        return trainer.describe(unpack_request(message.content))

    return _answered(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with this site's update of the incoming model."""

    def work(trainer: "Trainer") -> Released:
        request, weights = unpack_request(message.content), unpack_weights(message.content)
        return trainer.train(request, weights)

    return _answered(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with the incoming model's estimates on the held-out patients."""

    def work(trainer: "Trainer") -> Released:
        request, weights = unpack_request(message.content), unpack_weights(message.content)
        return trainer.evaluate(request, weights)

    return _answered(message, context, work)


def site_config(context: Context) -> Path:
    """Return where this node's site.yaml lies: as named, or by its place in a simulation."""
    named = context.node_config.get(SITE_CONFIG)
    if named is not None:
        return Path(str(named))
    folders = sorted(Path(os.environ[SITES_FOLDER]).iterdir())
    return folders[int(context.node_config["partition-id"])] / "site.yaml"


def _answered(message: Message, context: Context, work: Callable[["Trainer"], Released]) -> Message:
    log, name = logging.getLogger(__name__), None
    try:
        # Imported here, not above: the courier of a real site never loads torch.
        from client.trainer import trainer_at

        path = site_config(context)
        log = site_log(path.parent)
        trainer = trainer_at(path)
        name = trainer.site.name
        released = work(trainer)
    except RefusalError as error:
        log.exception("refused: %s", error.text)
        released = leave_refusal(name, error)
    except MessageError as error:
        log.exception("message not understood")
        # It says what is wrong with the server's own message, so it is a refusal like others.
        released = leave_refusal(name, RefusalError("message", str(error)))
    except Exception as error:
        log.exception("failed")
        released = leave_refusal(name, error)
    return reply(pack_answer(released), message)
