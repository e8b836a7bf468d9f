from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.certificates import new_key, signing_request
from server.beginning import parted
from server.federation.enrolment import admit, revoke
from server.federation.home import Home
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
