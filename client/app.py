"""The courier: a Flower message in, the trainer's answer out. Imports no torch, sees no data.

Whatever goes wrong at the site, the server reads a code and a sentence that was written for it;
the full error stays in the site's own log.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common.contract import Refusal, RefusalError
from common.messages import MessageError, pack, reply, unpack_request, unpack_weights

if TYPE_CHECKING:
    from client.trainer import Trainer

SITE_CONFIG = "site-config"
SITES_FOLDER = "WARDROUND_SITES"
LOG = "site.log"
UNKNOWN = "unknown"
"""Name of a site whose settings cannot be found."""

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Answer who this site is; its data has been read and checked by then."""

    def work(trainer: "Trainer") -> RecordDict:
        return pack(trainer.describe(unpack_request(message.content)))

    return _answered(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with this site's update of the incoming model."""

    def work(trainer: "Trainer") -> RecordDict:
        request, weights = unpack_request(message.content), unpack_weights(message.content)
        return pack(*trainer.train(request, weights))

    return _answered(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with the incoming model's estimates on the held-out patients."""

    def work(trainer: "Trainer") -> RecordDict:
        request, weights = unpack_request(message.content), unpack_weights(message.content)
        return pack(trainer.evaluate(request, weights))

    return _answered(message, context, work)


def site_config(context: Context) -> Path:
    """Return where this node's site.yaml lies: as named, or by its place in a simulation."""
    named = context.node_config.get(SITE_CONFIG)
    if named is not None:
        return Path(str(named))
    folders = sorted(Path(os.environ[SITES_FOLDER]).iterdir())
    return folders[int(context.node_config["partition-id"])] / "site.yaml"


def _answered(
    message: Message, context: Context, work: Callable[["Trainer"], RecordDict]
) -> Message:
    log, name = logging.getLogger(__name__), UNKNOWN
    try:
        # Imported here, not above: the courier of a real site never loads torch.
        from client.trainer import trainer_at

        path = site_config(context)
        log, name = _log_of(path.parent), path.parent.name
        trainer = trainer_at(path)
        name = trainer.site.name
        return reply(work(trainer), message)
    except RefusalError as error:
        log.exception("refused: %s", error.text)
        refusal = Refusal(site=name, code=error.code, text=error.text)
    except MessageError as error:
        log.exception("message not understood")
        refusal = Refusal(site=name, code="message", text=str(error))
    except Exception as error:
        log.exception("failed")
        text = f"{type(error).__name__} at the site; its own log has the details"
        refusal = Refusal(site=name, code="error", text=text)
    return reply(pack(refusal), message)


def _log_of(folder: Path) -> logging.Logger:
    log = logging.getLogger(f"wardround.site.{folder}")
    if not log.handlers:
        handler = logging.FileHandler(folder / LOG)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO)
    return log
