import json
from pathlib import Path

from server.events import EVENTS, event_log, words_of


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


def test_a_person_is_told_of_many_sites_in_few_words() -> None:
    epsilon = {f"st-{number:02d}": 3 + number / 100 for number in range(64)}
    parts = {site: {"seconds": 1.5} for site in epsilon}
    event = {"time": 1.0, "event": "round done", "round": 7, "sites": parts, "missing": {}}
    told = words_of({**event, "epsilon": epsilon, "dice": 0.712345, "auroc": None})
    assert told == "round=7  sites=64 sites  epsilon=3.0 to 3.63 at 64 sites  dice=0.7123"
    assert words_of({"sites": list(epsilon), "why": None}) == "sites=64 sites"


def test_of_few_sites_each_is_named_with_its_value_or_why_it_is_missing() -> None:
    told = words_of(
        {"sites": ["st-a", "st-b"], "missing": {"st-b": "gone"}, "values": {"st-a": 0.5}}
    )
    assert told == "sites=st-a, st-b  missing=st-b: gone  values=st-a: 0.5"
    many = {f"st-{number}": "gone" for number in range(20)}
    assert words_of({"missing": many}).count("gone") == 20
    assert words_of({"values": {"st-a": None}}) == "values=st-a: none"
