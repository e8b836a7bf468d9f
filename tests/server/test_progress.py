import io
import json
from pathlib import Path

from rich.console import Console

from server.events import EVENTS, event_log
from server.progress import Progress

RUN = [
    ("make", {"site": "st-a"}),
    ("start", {"rounds": 2, "done": 0}),
    ("enrolled", {"sites": ["st-a", "st-b"], "absent": {"st-c": "study: other version"}}),
    ("round", {"round": 1, "of": 2, "sites": ["st-a", "st-b"]}),
    ("reply", {"site": "st-a", "round": 1, "why": None}),
    ("missing", {"site": "st-b", "round": 1, "why": "no answer within 5 s"}),
    ("round done", {"round": 1, "seconds": 1.25, "dice": 0.5, "auroc": None}),
    ("final evaluation", {"sites": ["st-a"]}),
    ("evaluated", {"site": "st-a", "round": 2}),
    ("an event of a later version", {"site": "st-a"}),
    ("end", {"status": "partial", "reason": "st-c"}),
]


def shown(folder: Path, *events: tuple[str, dict[str, object]]) -> str:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200))
    with progress.watching(folder):
        tell = event_log(folder)
        for event, fields in events:
            tell(event, **fields)
    return out.getvalue()


def test_a_log_shows_every_step_of_a_run_as_plain_lines(tmp_path: Path) -> None:
    text = shown(tmp_path, *RUN)
    assert "hospital st-a:" in text
    assert "2 rounds; the sites read their data" in text
    assert "2 sites: st-a, st-b" in text
    assert "without st-c: study: other version" in text
    assert "round 1 without st-b: no answer within 5 s" in text
    assert "round   1     1.2 s  dice 0.500 before it" in text
    assert "auroc" not in text


def test_what_was_before_is_not_shown_again(tmp_path: Path) -> None:
    event_log(tmp_path)("make", site="st-old")
    text = shown(tmp_path, ("start", {"rounds": 3, "done": 1}))
    assert "st-old" not in text
    assert "3 rounds, going on after round 1" in text


def test_a_run_that_tells_nothing_shows_nothing(tmp_path: Path) -> None:
    assert "round" not in shown(tmp_path)


def test_what_is_written_while_the_block_ends_is_still_shown(tmp_path: Path) -> None:
    text = shown(tmp_path, *[("make", {"site": f"st-{number}"}) for number in range(300)])
    assert all(f"hospital st-{number}:" in text for number in range(300))


def test_a_half_written_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    out = io.StringIO()
    line = json.dumps({"time": 0, "event": "make", "site": "st-ä"}, ensure_ascii=False)
    with Progress(Console(file=out, width=200)).watching(tmp_path):
        path = tmp_path / EVENTS
        path.write_text(line[:20])
        with path.open("a") as file:
            file.write(line[20:] + "\n")
        event_log(tmp_path)("make", site="st-b")
    assert "hospital st-ä:" in out.getvalue()
    assert "hospital st-b:" in out.getvalue()


def test_a_node_without_a_name_is_waited_for_in_words(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        ("awaits", {"site": "4333815596414008924", "seconds": 30}),
        ("awaits", {"site": "st-a", "seconds": 60}),
    )
    assert "waiting for a site that still reads its data since 30 s" in text
    assert "waiting for st-a since 60 s" in text
    assert "4333815596414008924" not in text


def test_an_actor_that_died_over_several_hospitals_is_told_so(tmp_path: Path) -> None:
    about: dict[str, object] = {"of": 3, "why": "ActorDiedError"}
    one: dict[str, object] = {"partitions": [4], "attempt": 3, **about}
    several: dict[str, object] = {"partitions": [4, 5], "attempt": 1, **about}
    text = shown(tmp_path, ("actor died", several), ("actor died", one))
    assert "each of its hospitals is asked again after attempt 1 of 3" in text
    assert "its hospital is given up after attempt 3 of 3" in text
