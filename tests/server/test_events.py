import json
from pathlib import Path

from server.events import EVENTS, event_log


def test_every_event_is_one_line_of_json_in_the_order_told(tmp_path: Path) -> None:
    tell = event_log(tmp_path)
    tell("round", round=1, sites=["st-a"])
    tell("missing", site="st-b", why="two\nlines")
    lines = (tmp_path / EVENTS).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event.pop("time") > 0 for event in events] == [True, True]
    assert events == [
        {"event": "round", "round": 1, "sites": ["st-a"]},
        {"event": "missing", "site": "st-b", "why": "two\nlines"},
    ]


def test_a_resumed_run_adds_to_the_log(tmp_path: Path) -> None:
    event_log(tmp_path)("start", done=0)
    event_log(tmp_path)("start", done=1)
    lines = (tmp_path / EVENTS).read_text().splitlines()
    assert [json.loads(line)["done"] for line in lines] == [0, 1]
