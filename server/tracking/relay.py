"""Hands the events of a run on, to each place at its own pace; none of them can stop a study.

    tracking.json   in the run's folder: how much of the log each place has taken

A place that cannot be reached is told of once in the run's log ("tracking lost"), is tried again
with longer and longer pauses, and gets all that it missed. What was being taken when this process
was killed is taken again.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from common.files import read_json, write_json
from server.events import EVENTS, Tell, event_log
from server.tracking.config import TrackingConfig
from server.tracking.numbers import Event

FILE = "tracking.json"
POLL_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0
PIECE_BYTES = 2**20
LOST, BACK, UNFINISHED = "tracking lost", "tracking back", "tracking unfinished"
OWN = (LOST, BACK, UNFINISHED)
END_WITHIN_S = 20.0


class Sink(Protocol):
    """A place that events are told to."""

    name: str

    def take(self, events: Sequence[Event]) -> None:
        """Take the next events, none at times; after an error they come again, and maybe more."""

    def close(self) -> None:
        """End."""


@dataclass
class _Place:
    """A sink and how it stands."""

    name: str
    make: Callable[[], Sink]
    position: int
    sink: Sink | None = None
    lost: bool = False
    pause_s: float = FIRST_PAUSE_S
    not_before: float = 0.0


class Relay:
    """The places of one run."""

    def __init__(
        self,
        run: Path,
        places: Mapping[str, Callable[[], Sink]],
        tell: Tell | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """places: by name, what makes the sink; making it may fail as taking may."""
        path = run / FILE
        taken = read_json(path) if path.exists() else {}
        self._run, self._clock = run, clock
        self._tell = tell or event_log(run)
        self._places = [_Place(name, make, taken.get(name, 0)) for name, make in places.items()]

    def turn(self, at_once: bool = False) -> bool:
        """Hand on what is new; return whether every place has all that there is.

        at_once: also to a place whose pause is not over.
        """
        served = [self._serve(place, at_once) for place in self._places]
        return all(served)

    def finish(self) -> None:
        """Hand on the last events and end all places; what was not taken is told of."""
        self.turn(at_once=True)
        for place in (place for place in self._places if place.lost):
            self._tell(UNFINISHED, to=place.name)
        self.close()

    def close(self) -> None:
        """End all places."""
        for place in self._places:
            if place.sink is not None:
                place.sink.close()

    def _serve(self, place: _Place, at_once: bool) -> bool:
        if self._clock() < place.not_before and not at_once:
            return False
        try:
            if place.sink is None:
                place.sink = place.make()
            while True:
                events, position = self._after(place.position)
                place.sink.take(events)
                if position == place.position:
                    break
                place.position = position
                self._keep()
        except Exception as error:
            # Whatever a client of another project raises, the study goes on.
            self._failed(place, error)
            return False
        if place.lost:
            place.lost = False
            self._tell(BACK, to=place.name)
        place.pause_s = FIRST_PAUSE_S
        return True

    def _failed(self, place: _Place, error: Exception) -> None:
        place.not_before = self._clock() + place.pause_s
        place.pause_s = min(2 * place.pause_s, LONGEST_PAUSE_S)
        if not place.lost:
            place.lost = True
            lines = str(error).strip().splitlines() or [""]
            self._tell(LOST, to=place.name, why=f"{type(error).__name__}: {lines[0][:200]}")

    def _after(self, position: int) -> tuple[list[Event], int]:
        """Return the next whole lines as events, and where they end."""
        path = self._run / EVENTS
        if not path.exists():
            return [], position
        with path.open("rb") as file:
            file.seek(position)
            lines = file.readlines(PIECE_BYTES)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        return [of for line in lines if (of := _event_of(line))], position + sum(map(len, lines))

    def _keep(self) -> None:
        write_json(self._run / FILE, {place.name: place.position for place in self._places})


def places_of(config: TrackingConfig, run: Path, study: str) -> dict[str, Callable[[], Sink]]:
    """Return what makes each place that the settings name."""
    from server.tracking.mlflow_sink import MlflowSink
    from server.tracking.tensorboard_sink import TensorBoardSink
    from server.tracking.webhook import WebhookSink

    places: dict[str, Callable[[], Sink]] = {}
    uri, url = config.mlflow, config.webhook
    if uri is not None:
        places["mlflow"] = lambda: MlflowSink(run, study, uri)
    if config.tensorboard:
        places["tensorboard"] = lambda: TensorBoardSink(run)
    if url is not None:
        about = {"run": run.name, "study": study}
        places["webhook"] = lambda: WebhookSink(url, config.secret(), about, config.stall_s)
    return places


@contextmanager
def tracked(config: TrackingConfig | None, run: Path, study: str) -> Iterator[None]:
    """Hand on the events of a run while the block works, and what is left of them at its end."""
    if config is None:
        yield
        return
    relay, ended = Relay(run, places_of(config, run, study)), threading.Event()

    def work() -> None:
        while not ended.wait(POLL_S):
            relay.turn()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(END_WITHIN_S)
        if not thread.is_alive():
            relay.finish()


def _event_of(line: bytes) -> dict[str, Any] | None:
    """Return an event that is to be handed on; None for one of ours, and for a broken line."""
    try:
        event = from_json(line)
    except ValueError:
        return None
    known = isinstance(event, dict) and isinstance(event.get("time"), (int, float))
    return event if known and event.get("event") not in (None, *OWN) else None
