"""The process that tells of the centre's studies elsewhere, where federation/tracking.yaml says so.

Its own process, so that no client of another project can hold up or take down the centre.

    python -m server.daemon.tracker HOME
"""

import signal
import sys
import threading
from logging import Logger
from pathlib import Path
from typing import Any

import yaml

from common.daemon_log import daemon_log
from common.schema import SettingsError, typed
from common.supervision import end_with_supervisor
from server.events import Tell
from server.federation.home import Home, open_home
from server.studies import StudyRun, runs_in
from server.tracking.config import TrackingConfig
from server.tracking.relay import FILE, POLL_S, Relay, places_of

SETTINGS = "tracking.yaml"


def tracking_of(home: Home) -> TrackingConfig | None:
    """Return the federation's tracking settings; None where there are none.

    Raises:
        SettingsError: they cannot be used.
    """
    path = home.path / SETTINGS
    if not path.exists():
        return None
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as settings: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds no settings (docs/tracking.md)")
    return typed(values, TrackingConfig, "tracking")


class Tracker:
    """Follows all studies of a home."""

    def __init__(self, home: Home, config: TrackingConfig, log: Logger) -> None:
        self._home, self._config, self._log = home, config, log
        self._relays: dict[str, Relay] = {}
        self._done: set[str] = set()
        """Studies that have ended and of which all was told."""

    def turn(self) -> None:
        """Look at every study once."""
        for run in runs_in(self._home.path):
            name, over = run.folder.name, run.result() is not None
            if name in self._done:
                if not over:
                    # Somebody goes on with it.
                    self._done.discard(name)
                continue
            if over and name not in self._relays and not (run.folder / FILE).exists():
                # It was over before anything was to be told of it.
                self._done.add(name)
                continue
            relay = self._relays.setdefault(name, self._relay(run))
            if relay.turn() and over:
                relay.close()
                del self._relays[name]
                self._done.add(name)

    def close(self) -> None:
        """End what is open."""
        for relay in self._relays.values():
            relay.close()

    def _relay(self, run: StudyRun) -> Relay:
        places = places_of(self._config, run.folder, run.asked.study)
        return Relay(run.folder, places, _logged(self._log, run))


def _logged(log: Logger, run: StudyRun) -> Tell:
    # Not into the run's own log: an event there tells that the study's process is at work.
    def told(event: str, **fields: Any) -> None:  # noqa: ANN401 - an event's fields
        log.warning("%s: %s: %s", run.folder.name, event, fields)

    return told


def main() -> None:
    """Run as a part of the server's daemon."""
    end_with_supervisor()
    log = daemon_log("tracker")
    home = open_home(Path(sys.argv[1]))
    config = tracking_of(home)
    if config is None:
        raise SystemExit(f"{home.path / SETTINGS} is gone; start the centre again")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    tracker = Tracker(home, config, log)
    while not ended.wait(POLL_S):
        tracker.turn()
    tracker.close()


if __name__ == "__main__":
    main()
