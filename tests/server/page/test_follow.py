import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.events import EVENTS, event_log
from server.page import follow
from server.page.follow import Asked, Follower, last_events


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]


def test_a_follower_reads_on_and_waits_for_a_line_that_is_being_written(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert follower.look()
    event_log(tmp_path)("start", rounds=7, done=0)
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"time": 1, "event": "enrolled", "sites": ["st-a"')
    follower.look()
    assert (follower.story.planned, list(follower.story.sites)) == (7, [])
    with (tmp_path / EVENTS).open("a") as file:
        file.write('], "absent": {}}\n')
    follower.look()
    assert list(follower.story.sites) == ["st-a"]
    assert follower.position == follower.size


def test_what_is_read_in_pieces_is_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = event_log(tmp_path)
    tell("start", rounds=50, done=0)
    for number in range(1, 51):
        tell("round", round=number, of=50, sites=["st-a", "st-b"])
        tell("measured", round=number - 1, metric="dice", values={"st-a": number / 50})
    monkeypatch.setattr(follow, "PIECE_BYTES", 100)
    once, pieces = Follower(tmp_path), Follower(tmp_path)
    assert once.look()
    looks = 1
    while not pieces.look(200):
        looks += 1
    assert looks > 10
    assert pieces.story.round == once.story.round == 50
    assert pieces.story.mean.points(100) == once.story.mean.points(100)


def test_another_run_in_the_same_folder_is_another_story(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    event_log(tmp_path)("start", rounds=7, done=3)
    follower.look()
    (tmp_path / EVENTS).unlink()
    event_log(tmp_path)("make", site="st-z")
    follower.look()
    assert (follower.story.planned, list(follower.story.sites)) == (0, ["st-z"])


def test_a_broken_line_is_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = ["not JSON", "[]", '{"event": "start"}', '{"time": 1, "event": "start"}', "{}"]
    (tmp_path / EVENTS).write_text("\n".join(lines) + "\n")
    event_log(tmp_path)("start", rounds=2, done=0)
    follower = Follower(tmp_path)
    follower.look()
    assert follower.story.planned == 2
    assert len(last_events(tmp_path, Asked(all_kinds=True, text="rounds"))) == 1


@given(
    st.lists(st.sampled_from(["start", "reply", "missing", "round done"]), max_size=40),
    st.integers(1, 30),
    st.sampled_from(["", "st-1", "st-2"]),
    st.booleans(),
    st.integers(1, 200),
)
def test_the_newest_events_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    last: int,
    site: str,
    all_kinds: bool,
    piece: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    tell = event_log(folder)
    for number, kind in enumerate(kinds):
        tell(kind, site=f"st-{number % 3}", number=number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "PIECE_BYTES", piece)
        found = last_events(folder, Asked(site=site, all_kinds=all_kinds, last=last))
    events = told(folder) if kinds else []
    wanted = [e for e in events if site in ("", e["site"]) and (all_kinds or e["event"] != "reply")]
    assert found == wanted[-last:]


def test_a_text_is_sought_in_upper_and_lower_case(tmp_path: Path) -> None:
    tell = event_log(tmp_path)
    tell("missing", site="st-a", why="Data: no FILES")
    tell("missing", site="st-b", why="gone")
    (found,) = last_events(tmp_path, Asked(text="no files"))
    assert found["site"] == "st-a"


def test_what_a_line_shows_is_found_by_it(tmp_path: Path) -> None:
    epsilon = {f"st-{number}": 1.23456 for number in range(20)}
    tell = event_log(tmp_path)
    tell("enrolled", sites=[*epsilon], absent={})
    tell("round done", round=3, missing={"st-x": "gone"}, epsilon=epsilon)
    for text in ("sites=20 sites", "1.2346 to 1.2346 at 20 sites", "missing=st-x: gone"):
        assert last_events(tmp_path, Asked(text=text))
    assert not last_events(tmp_path, Asked(text="sites=21"))
