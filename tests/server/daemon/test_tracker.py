"""The centre tells of its studies elsewhere, if its folder says so."""

import logging
from pathlib import Path

import pytest
import yaml

from common.files import write_json
from common.schema import SettingsError
from server.daemon.supervisor import parts_of
from server.daemon.tracker import SETTINGS, Tracker, tracking_of
from server.events import EVENTS, event_log
from server.federation.home import Home
from server.studies import RESULT, StudyRun, ask, go_on
from server.tracking.config import TrackingConfig
from tests.server.federation.homes import a_home
from tests.server.tracking.receiver import receiver

LOG = logging.getLogger("test")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return a_home(tmp_path / "centre")


def ended(run: StudyRun, status: str) -> None:
    event_log(run.folder)("end", status=status, reason=None)
    write_json(run.folder / RESULT, {"status": status, "reason": ""})


def test_without_settings_there_is_no_tracker(home: Home) -> None:
    assert tracking_of(home) is None
    assert [part.name for part in parts_of(home, "127.0.0.1", 1)] == ["link", "exec"]
    (home.path / SETTINGS).write_text(yaml.safe_dump({"tensorboard": True}))
    assert tracking_of(home) == TrackingConfig(tensorboard=True)
    assert [part.name for part in parts_of(home, "127.0.0.1", 1)] == ["link", "exec", "tracker"]


@pytest.mark.parametrize("text", ["tensorbord: true", "mlflow: [1]", "nothing", "{"])
def test_settings_that_cannot_be_used_are_refused(home: Home, text: str) -> None:
    (home.path / SETTINGS).write_text(text)
    with pytest.raises(SettingsError, match=r"tracking"):
        tracking_of(home)


def test_a_place_that_is_down_leaves_no_sign_of_life_in_a_study(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    run = ask(home.path, "one", "ab", [], ["st-a"], 1.0)
    event_log(run.folder)("start", rounds=2, done=0)
    before = (run.folder / EVENTS).read_bytes()
    # Nobody listens at port 9.
    Tracker(home, TrackingConfig(mlflow="http://127.0.0.1:9"), LOG).turn()
    event_log(run.folder)("measured", round=0, metric="dice", values={"st-a": 0.5})
    after = (run.folder / EVENTS).read_bytes()
    Tracker(home, TrackingConfig(mlflow="http://127.0.0.1:9"), LOG).turn()
    assert after.startswith(before)
    assert (run.folder / EVENTS).read_bytes() == after
    assert f"{run.folder.name}: tracking lost" in caplog.text


def test_each_study_is_told_of_until_its_end_and_once(home: Home, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef")
    before = ask(home.path, "before", "ab", [], ["st-a"], 1.0)
    ended(before, "completed")
    run = ask(home.path, "one", "ab", [], ["st-a"], 1.0)
    with receiver() as place:
        config = TrackingConfig(webhook=place.url, webhook_secret=str(tmp_path / "secret"))
        tracker = Tracker(home, config, LOG)
        event_log(run.folder)("start", rounds=2, done=0)
        tracker.turn()
        event_log(run.folder)("missing", site="st-a", round=1, why="words")
        tracker.turn()
        ended(run, "stopped")
        for _ in range(3):
            tracker.turn()
        # Another process of the centre has nothing to tell.
        Tracker(home, config, LOG).turn()
        go_on(run)
        tracker.turn()
        ended(run, "completed")
        tracker.turn()
        told = [(of.json["study"], of.json["kind"], of.json.get("status")) for of in place.told]
    assert told == [
        ("one", "site lost", None),
        ("one", "ended", "stopped"),
        ("one", "ended", "completed"),
    ]
