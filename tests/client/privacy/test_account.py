import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.account import ACCOUNT, Account
from common.accounting import PrivateSteps, epsilon_of

DELTA = 1e-3
STEPS = PrivateSteps(noise_multiplier=1.1, sample_rate=0.1, steps=7)
CHARGES = st.lists(
    st.tuples(
        st.sampled_from(["r1", "r2", "r3", "r4"]),
        st.builds(
            PrivateSteps,
            noise_multiplier=st.sampled_from([2.0, 5.0]),
            sample_rate=st.sampled_from([0.05, 1.0]),
            steps=st.integers(1, 20),
        ),
    ),
    max_size=6,
)


def charged(folder: Path, releases: int) -> Account:
    account = Account(folder)
    for number in range(releases):
        account.charge(f"release-{number}", STEPS)
    return account


def test_an_account_that_was_never_charged_has_spent_nothing(tmp_path: Path) -> None:
    account = Account(tmp_path)
    assert account.history() == []
    assert account.epsilon(DELTA) == 0.0
    assert account.steps() == 0


def test_what_is_charged_is_in_the_account_of_the_next_process(tmp_path: Path) -> None:
    charged(tmp_path / "new" / "folder", 3)
    again = Account(tmp_path / "new" / "folder")
    assert again.history() == [STEPS] * 3
    assert again.steps() == 21
    assert again.epsilon(DELTA) == epsilon_of([STEPS] * 3, DELTA)


def test_the_same_release_is_charged_once(tmp_path: Path) -> None:
    account = charged(tmp_path, 2)
    before = (tmp_path / ACCOUNT).read_bytes()
    account.charge("release-0", STEPS)
    assert (tmp_path / ACCOUNT).read_bytes() == before


@settings(deadline=None, max_examples=20)
@given(charges=CHARGES)
def test_epsilon_never_decreases_and_the_file_only_grows(
    charges: list[tuple[str, PrivateSteps]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        account, epsilon, content = Account(Path(folder)), 0.0, b""
        for release, steps in charges:
            account.charge(release, steps)
            grown = (Path(folder) / ACCOUNT).read_bytes()
            assert grown.startswith(content)
            assert account.epsilon(DELTA) >= epsilon
            epsilon, content = account.epsilon(DELTA), grown
        assert len(account.history()) == len({release for release, _ in charges})


def test_a_kill_in_the_middle_of_a_write_loses_that_line_alone(tmp_path: Path) -> None:
    charged(tmp_path, 3)
    path = tmp_path / ACCOUNT
    whole = path.read_bytes()
    third = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(third, len(whole)):
        path.write_bytes(whole[:end])
        account = Account(tmp_path)
        assert account.history() == [STEPS] * 2
        account.charge("release-2", STEPS)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"5",
        b"null",
        b'"text"',
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"release": "r"}',
        b'{"release": "r", "noise_multiplier": 1.1, "sample_rate": 0.1, "steps": "many"}',
        b'{"release": "r", "noise_multiplier": 1.1, "sample_rate": 0.1, "steps": -7}',
        b'{"release": "r", "noise_multiplier": NaN, "sample_rate": 0.1, "steps": 7}',
        b'{"release": "r", "noise_multiplier": 1.1, "sample_rate": 0.1, "steps": 7, "more": 1}',
        b'{"release": "r", "noise_multiplier": 1.1, "sample_',
    ],
)
def test_a_line_that_is_broken_in_the_middle_stops_the_site(tmp_path: Path, line: bytes) -> None:
    charged(tmp_path, 3)
    path = tmp_path / ACCOUNT
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], line, *lines[2:]]))
    for use in (
        lambda: Account(tmp_path).epsilon(DELTA),
        lambda: Account(tmp_path).charge("release-9", STEPS),
    ):
        with pytest.raises(ValueError, match=r"line 2 of .* is not an entry .* restore the file"):
            use()
