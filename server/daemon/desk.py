"""What the listener answers itself: a site's word of its work, and whether it is to stop."""

import json
from pathlib import Path

from server.presence import Presence, word_from
from server.studies import stop_asked


class Desk:
    """Takes the sites' words."""

    def __init__(self, home: Path) -> None:
        self._runs = home / "runs"
        self._presence = Presence(home)

    def word(self, site: str, raw: bytes) -> tuple[int, bytes]:
        """Keep a site's word; return the HTTP status and the answer, `stop` for its run."""
        try:
            word = word_from(raw)
        except ValueError as error:
            return 400, json.dumps({"error": str(error)}).encode()
        self._presence.hear(site, word)
        # A run's name comes from outside: it may name a folder of ours, and nothing else.
        known = word.run and "/" not in word.run and not word.run.startswith(".")
        stop = bool(known) and stop_asked(self._runs / word.run)
        return 200, json.dumps({"stop": stop}).encode()
