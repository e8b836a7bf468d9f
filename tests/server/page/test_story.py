"""What the story tells of a run is what its result.json says."""

import json
from pathlib import Path

import pytest

from common.files import read_json
from server.events import EVENTS, event_log
from server.page.follow import Follower
from server.page.story import MEASURING, READING, RUNNING, Story
from server.report.reading import estimate, estimates
from server.run import RESULT
from tests.builders import numbers_app
from tests.server.test_run import PATIENTS, breaks, run, with_nan


def story_of(folder: Path) -> Story:
    follower = Follower(folder)
    follower.look()
    return follower.story


def test_the_story_of_a_run_has_the_figures_of_its_result(tmp_path: Path) -> None:
    run(tmp_path, breaks(with_nan), "rounds=3")
    story, result = story_of(tmp_path), read_json(tmp_path / RESULT)
    assert (story.phase, story.ended, story.reason) == (result["status"], True, result["reason"])
    assert story.done == story.planned == len(result["rounds"])
    name = result["headline"]
    assert story.metric == name
    assert story.mean.last == pytest.approx(result["final"]["mean"][name])
    parts = [(site, part) for r in result["rounds"] for site, part in r["sites"].items()]
    for site, told in story.sites.items():
        own = [part for of, part in parts if of == site]
        assert told.rounds == len(own)
        assert told.missed == sum(site in record["missing"] for record in result["rounds"])
        for sum_of in ("bytes_sent", "bytes_received", "seconds"):
            assert getattr(told, sum_of) == pytest.approx(sum(part[sum_of] for part in own))
        assert told.values.last == estimate(estimates(result, "final")[site], name)["value"]
        assert told.losses.points(99) == [
            (r["round"], r["sites"][site]["train_loss"])
            for r in result["rounds"]
            if site in r["sites"]
        ]
    assert story.sites["st-b"].missed == 1
    assert story.seconds.total == pytest.approx(result["seconds"])


def test_the_curve_of_a_site_is_that_of_its_rounds(tmp_path: Path) -> None:
    run(tmp_path, numbers_app(PATIENTS), "rounds=3")
    story, result = story_of(tmp_path), read_json(tmp_path / RESULT)
    name = result["headline"]
    for site in PATIENTS:
        before = [r["sites"][site]["before"][name]["value"] for r in result["rounds"]]
        final = result["final"]["sites"][site][name]["value"]
        assert story.sites[site].values.points(99) == list(enumerate([*before, final]))


def test_every_moment_of_a_run_has_a_state(tmp_path: Path) -> None:
    tell = event_log(tmp_path)
    follower = Follower(tmp_path)

    def now(event: str, **fields: object) -> tuple[str, dict[str, tuple[str, str]]]:
        tell(event, **fields)
        follower.look()
        sites = follower.story.sites
        return follower.story.phase, {name: (of.state, of.why) for name, of in sites.items()}

    assert now("start", rounds=2, done=0)[0] == READING
    phase, sites = now("waiting", absent={"st-b": "is not connected"}, seconds_left=9)
    assert sites == {"st-b": ("not there yet", "is not connected")}
    phase, sites = now("enrolled", sites=["st-a"], absent={"st-b": "is not connected"})
    assert (phase, sites["st-a"], sites["st-b"]) == (
        RUNNING,
        ("joined", ""),
        ("absent", "is not connected"),
    )
    assert now("round", round=1, of=2, sites=["st-a"])[1]["st-a"] == ("works on round 1", "")
    assert now("awaits", site="st-a", seconds=60)[1]["st-a"][1] == "waited for since 60 s"
    assert now("reply", site="st-a", round=1)[1]["st-a"] == ("has answered round 1", "")
    phase, sites = now("missing", site="st-a", round=1, why="data: no files")
    assert sites["st-a"] == ("missing in round 1", "data: no files")
    assert now("final evaluation", sites=["st-a"])[0] == MEASURING
    phase, sites = now("end", status="partial", reason="st-b: gone", epsilon={"st-a": 1.5})
    assert (phase, follower.story.reason, sites["st-b"][0]) == ("partial", "st-b: gone", "absent")
    assert follower.story.sites["st-a"].epsilon == 1.5
    # Whoever resumes it begins where it stood.
    assert now("start", rounds=2, done=1)[0] == READING
    assert not follower.story.ended


def test_rounds_whose_checkpoint_is_gone_are_not_counted_twice(tmp_path: Path) -> None:
    tell = event_log(tmp_path)
    part = {"seconds": 1.0, "bytes_sent": 10, "bytes_received": 10, "train_loss": 0.5}
    for _ in range(2):
        tell("start", rounds=2, done=0)
        tell("round done", round=1, seconds=5.0, sites={"st-a": part}, missing={"st-b": "gone"})
    story = story_of(tmp_path)
    site = story.sites["st-a"]
    assert (site.rounds, site.bytes_sent, site.seconds, story.sites["st-b"].missed) == (1, 10, 1, 1)
    assert story.seconds.total == 5.0
    # Of a resumed run they stay.
    tell("start", rounds=2, done=1)
    assert story_of(tmp_path).sites["st-a"].rounds == 1


def test_an_event_of_another_version_changes_the_time_alone(tmp_path: Path) -> None:
    event_log(tmp_path)("start", rounds=2, done=0)
    before = story_of(tmp_path)
    event_log(tmp_path)("something new", site="st-a")
    after = story_of(tmp_path)
    assert (after.phase, after.planned, after.sites) == (before.phase, before.planned, {})
    last = json.loads((tmp_path / EVENTS).read_text().splitlines()[-1])
    assert after.last == last["time"]
