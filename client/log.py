"""The site's own log: what a data officer and IT read, and no server ever sees."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from common.daemon_log import KEPT_FILES, MOST_BYTES

LOG = "site.log"


def site_log(folder: Path) -> logging.Logger:
    """Return the log of the site whose site.yaml lies in the folder; a file beside it."""
    log = logging.getLogger(f"wardround.site.{folder.resolve()}")
    if not log.handlers:
        handler = RotatingFileHandler(folder / LOG, maxBytes=MOST_BYTES, backupCount=KEPT_FILES)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO)
    return log
