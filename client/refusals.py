"""An error at a site as what the server may read of it; all of it goes into the site's own log."""

import logging

from client.privacy.gate import leave_refusal
from client.progress import StoppedError
from common.bodies import MessageError
from common.contract import RefusalError, Released


def refused(log: logging.Logger, site: str | None, error: Exception) -> Released:
    """Log an error that is being handled, and return the refusal that it becomes.

    site: its own name, or None where its settings could not be read.
    """
    if isinstance(error, RefusalError):
        log.error("refused: %s", error.text, exc_info=error)
        return leave_refusal(site, error)
    if isinstance(error, StoppedError):
        log.info("stopped, as the server asked")
        return leave_refusal(site, RefusalError("trainer", "stopped, as the server asked"))
    if isinstance(error, MessageError):
        log.error("message not understood", exc_info=error)
        # It says what is wrong with the server's own message, so it is a refusal like others.
        return leave_refusal(site, RefusalError("message", str(error)))
    log.error("failed", exc_info=error)
    return leave_refusal(site, error)
