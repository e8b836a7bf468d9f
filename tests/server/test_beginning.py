from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.certificates import new_key, signing_request
from server.beginning import begin_study, parted
from server.federation.enrolment import admit, revoke
from server.federation.home import Home
from server.studies import runs_in
from tests.server.federation.homes import a_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    now = datetime.now(UTC)
    made = a_home(tmp_path / "centre", now=now)
    for name in ("st-a", "st-b", "st-c"):
        admit(made, signing_request(new_key(), name), name, now, 90)
    revoke(made, "st-c", now)
    return made


@pytest.mark.parametrize(
    ("told", "sites"),
    [
        ("sites=all", ["st-a", "st-b"]),
        ("sites=st-b", ["st-b"]),
        ("sites=[st-b, st-a]", ["st-a", "st-b"]),
    ],
)
def test_the_sites_are_told_from_the_settings(home: Home, told: str, sites: list[str]) -> None:
    assert parted(home, ["rounds=2", told, "seed=1"]) == (["rounds=2", "seed=1"], sites)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["rounds=2"], "no sites are named; give sites=NAME,NAME of: st-a, st-b"),
        (["sites=st-c"], "sites=st-c is not admitted; admitted are: st-a, st-b"),
        (["sites=st-a,st-z"], "sites=st-z is not admitted"),
        (["sites="], "is not admitted"),
    ],
)
def test_a_site_that_may_not_take_part_is_named(home: Home, settings: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parted(home, settings)


@pytest.mark.parametrize("given", ["model.members=2", f"begins_with='{'ab' * 32}'"])
def test_what_only_a_turn_can_begin_is_refused_before_a_site_is_asked(
    home: Home, given: str
) -> None:
    with pytest.raises(ValueError, match="wardround-server turns"):
        begin_study(home, ["experiment=smoke", given, "sites=all"], 60.0)
    assert runs_in(home.path) == []
