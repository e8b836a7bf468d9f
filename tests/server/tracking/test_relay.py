"""Every place gets every event in order, whatever happens to it, and no study waits for it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import read_json
from server.events import EVENTS, event_log
from server.run import RESULT
from server.tracking.config import TrackingConfig
from server.tracking.relay import BACK, LOST, OWN, UNFINISHED, Relay, tracked
from tests.builders import numbers_app
from tests.server.page.conftest import begun
from tests.server.test_run import PATIENTS, run


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A sink that is down at times."""

    name = "place"

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.down = False
        self.tries = 0

    def take(self, events: Sequence[Any]) -> None:
        self.tries += 1
        if self.down:
            raise ConnectionError("https://place.test cannot be reached\nmore")
        self.taken += [event["round"] for event in events]

    def close(self) -> None:
        """Nothing is open."""


def relay_to(folder: Path, place: Place, clock: Callable[[], float] | None = None) -> Relay:
    return Relay(folder, {"place": lambda: place}, clock=clock or Clock())


def own_events(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]
    return [event for event in events if event["event"] in OWN]


@given(st.lists(st.sampled_from(["event", "turn", "down", "up", "kill"]), max_size=40))
def test_all_events_arrive_once_in_order_through_outages_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, moves: list[str]
) -> None:
    folder, place, clock = tmp_path_factory.mktemp("run"), Place(), Clock()
    tell, relay, told = event_log(folder), relay_to(folder, place, clock), 0
    for move in moves:
        if move == "event":
            tell("round", round=told)
            told += 1
        elif move == "turn":
            relay.turn()
        elif move == "kill":
            relay = relay_to(folder, place, clock)
        else:
            place.down = move == "down"
    place.down = False
    clock.now += 1e6
    assert relay.turn()
    assert place.taken == list(range(told))


def test_a_place_that_is_down_is_told_of_once_and_tried_with_longer_pauses(tmp_path: Path) -> None:
    place, clock = Place(), Clock()
    relay = relay_to(tmp_path, place, clock)
    place.down = True
    event_log(tmp_path)("round", round=0)
    for _ in range(100):
        assert not relay.turn()
        clock.now += 1
    # After 0, 2, 6, 14, 30 and 62 seconds.
    assert place.tries == 6
    (lost,) = own_events(tmp_path)
    assert (lost["to"], lost["why"]) == (
        "place",
        "ConnectionError: https://place.test cannot be reached",
    )
    place.down = False
    clock.now += 1000
    assert relay.turn()
    assert [event["event"] for event in own_events(tmp_path)] == [LOST, BACK]
    assert place.taken == [0]


def test_one_place_that_is_down_holds_up_no_other(tmp_path: Path) -> None:
    good, bad = Place(), Place()
    bad.down = True

    def cannot_be_made() -> Place:
        raise ImportError("no such library")

    places = {"bad": lambda: bad, "none": cannot_be_made, "good": lambda: good}
    relay = Relay(tmp_path, places, clock=Clock())
    event_log(tmp_path)("round", round=7)
    assert not relay.turn()
    assert good.taken == [7]
    assert sorted(event["to"] for event in own_events(tmp_path)) == ["bad", "none"]


def test_a_study_ends_well_where_its_tracking_server_is_down(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    # Nobody listens at port 9.
    config = TrackingConfig(mlflow="http://127.0.0.1:9", tensorboard=True)
    with tracked(config, folder, "smoke"):
        run(folder, numbers_app(PATIENTS), "rounds=2")
    assert read_json(folder / RESULT)["status"] == "completed"
    assert [(event["event"], event["to"]) for event in own_events(folder)] == [
        (LOST, "mlflow"),
        (UNFINISHED, "mlflow"),
    ]
    assert list((folder / "tensorboard").iterdir())
