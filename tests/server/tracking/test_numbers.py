from pathlib import Path

import pytest

from common.files import read_json
from server.events import EVENTS
from server.page.follow import Asked, last_events
from server.run import RESULT
from server.tracking.numbers import notices_of, numbers_of
from tests.server.test_run import PATIENTS, breaks, run, with_nan


def test_the_numbers_of_a_run_are_those_of_its_result(tmp_path: Path) -> None:
    run(tmp_path, breaks(with_nan), "rounds=3")
    result = read_json(tmp_path / RESULT)
    events = last_events(tmp_path, Asked(all_kinds=True, last=1000))
    told = {(of.name, of.round): of.value for event in events for of in numbers_of(event)}
    name = result["headline"]
    assert told[f"{name}/mean", 3] == pytest.approx(result["final"]["mean"][name])
    for record in result["rounds"]:
        number = record["round"]
        for site, part in record["sites"].items():
            assert told[f"train_loss/{site}", number] == part["train_loss"]
            assert told[f"{name}/{site}", number - 1] == part["before"][name]["value"]
        assert told["round/seconds", number] == record["seconds"]
        assert told["round/missing", number] == len(record["missing"])
    assert {tag.split("/")[1] for tag, _ in told if tag.startswith(name)} == {*PATIENTS, "mean"}


def test_a_notice_has_no_words_of_a_site(tmp_path: Path) -> None:
    run(tmp_path, breaks(with_nan), "rounds=3")
    events = last_events(tmp_path, Asked(all_kinds=True, last=1000))
    notices = [notice for event in events for notice in notices_of(event)]
    assert notices == [
        {"kind": "site lost", "site": "st-b", "round": 2},
        {"kind": "ended", "status": "partial"},
    ]
    assert "NaN" in (tmp_path / EVENTS).read_text()


def test_a_site_that_is_absent_from_the_start_is_lost() -> None:
    event = {"event": "enrolled", "sites": ["st-a"], "absent": {"st-b": "is not connected"}}
    assert notices_of(event) == [{"kind": "site lost", "site": "st-b", "round": 0}]
    assert numbers_of(event | {"time": 1.0}) == []


@pytest.mark.parametrize("kind", ["measured", "round done", "end", "missing", "enrolled"])
def test_a_broken_event_tells_nothing_and_holds_up_nothing(kind: str) -> None:
    for event in ({"event": kind, "time": 1.0}, {"event": kind, "time": 1.0, "values": 3}):
        assert numbers_of(event) == []
        assert notices_of(event) == []
