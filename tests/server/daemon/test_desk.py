import json
from pathlib import Path

import pytest

from server.daemon.desk import Desk
from server.presence import Presence
from server.studies import STOP, ask


def say(home: Path, run: str) -> tuple[int, bool | None]:
    word = {"session": "s", "run": run, "round": 1, "beats": 0}
    status, body = Desk(home).word("st-a", json.dumps(word).encode())
    return status, json.loads(body).get("stop")


def test_a_word_is_kept_and_stop_is_told_for_its_run_alone(tmp_path: Path) -> None:
    one, two = (ask(tmp_path, name, "ab", [], ["st-a"], 1.0).folder for name in ("one", "two"))
    assert say(tmp_path, one.name) == (200, False)
    (one / STOP).touch()
    assert say(tmp_path, one.name) == (200, True)
    assert say(tmp_path, two.name) == say(tmp_path, "") == (200, False)
    heard = Presence(tmp_path).of("st-a")
    assert heard is not None
    assert heard.word.session == "s"


@pytest.mark.parametrize("run", ["..", ".", "../runs/one", "/etc", "a/../b"])
def test_a_runs_name_from_outside_leads_nowhere_else(run: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for place in (tmp_path, tmp_path / "runs"):
        (place / STOP).touch()
    assert say(tmp_path, run) == (200, False)


def test_what_is_no_word_is_answered_so(tmp_path: Path) -> None:
    status, body = Desk(tmp_path).word("st-a", b"x" * 5000)
    assert status == 400
    assert "not a site" in json.loads(body)["error"]
    assert Presence(tmp_path).of("st-a") is None
