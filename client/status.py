"""What a site's node says of itself on its own machine: one small file, for `status`."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from common.files import write_json

STATUS = "node.json"
_log = logging.getLogger("wardround.node")


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """How the node stands. Times are Unix seconds."""

    connected: bool = False
    since: float = 0.0
    """Since when it is connected, or is not."""
    study: str = ""
    """Digest of the last study that asked; empty before the first."""
    round: int = 0
    """The last round that asked."""
    done: int = 0
    of: int = 0
    last_answer: str = ""
    """What the last answer was, in words."""
    last_error: str = ""
    """The last failure in words; empty if there was none."""
    last_error_at: float = 0.0


class StatusFile:
    """The node's status, kept in a file of the state folder."""

    def __init__(self, state: Path) -> None:
        self._path = state / STATUS
        self._status = NodeStatus(since=time.time())
        self._write()

    def connection(self, connected: bool) -> None:
        """Take note that the node is connected now, or not any more."""
        if connected != self._status.connected:
            self.change(connected=connected, since=time.time())

    def error(self, text: str) -> None:
        """Take note of a failure."""
        self.change(last_error=text, last_error_at=time.time())

    def change(self, **told: object) -> None:
        """Take note of fields."""
        self._status = replace(self._status, **told)  # type: ignore[arg-type]
        self._write()

    def _write(self) -> None:
        try:
            write_json(self._path, asdict(self._status))
        except OSError as error:
            # A full disk: the node is worth more than what it says of itself.
            _log.warning("the status cannot be written: %s", error)


def read_status(state: Path) -> NodeStatus | None:
    """Return what the node last said; None if it never ran here."""
    try:
        told = json.loads((state / STATUS).read_text())
    except (OSError, ValueError):
        return None
    names = {field.name for field in fields(NodeStatus)}
    known = {n: v for n, v in told.items() if n in names} if isinstance(told, Mapping) else {}
    return NodeStatus(**known)
