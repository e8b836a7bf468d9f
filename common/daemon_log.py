"""Structured logs of a daemon: one JSON object a line, on stdout and in a file that rolls over."""

import json
import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

MOST_BYTES, KEPT_FILES = 10_000_000, 5
_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """time, level, part and text of a record, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        fields = {name: value for name, value in vars(record).items() if name not in _OWN}
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("wardround."),
            "text": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def daemon_log(part: str, file: Path | None = None) -> logging.Logger:
    """Return the log of a part of a daemon; with a file, lines go there and to stdout.

    A part without a file of its own writes to stdout alone, which its supervisor reads.
    """
    log = logging.getLogger(f"wardround.{part}")
    if not log.handlers:
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(RotatingFileHandler(file, maxBytes=MOST_BYTES, backupCount=KEPT_FILES))
        for handler in handlers:
            handler.setFormatter(JsonLines())
            log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO)
    return log
