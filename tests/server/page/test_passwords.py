import json
import stat
from pathlib import Path

import pytest

from server.page import passwords
from server.page.passwords import FILE, FOLDER, is_password, people, remove_person, set_password
from tests.server.federation.homes import a_home

WORD = "four words apart"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "COST", 2**4)


def test_there_is_no_default(tmp_path: Path) -> None:
    home = a_home(tmp_path / "centre")
    assert people(home.path) == []
    assert not any(is_password(home.path, name, "") for name in ("", "admin", "anna"))


def test_a_password_lets_one_person_enter_until_it_is_changed(tmp_path: Path) -> None:
    home = a_home(tmp_path / "centre")
    set_password(home, "anna", WORD)
    set_password(home, "ben", f"{WORD}!")
    assert is_password(home.path, "anna", WORD)
    assert not is_password(home.path, "ben", WORD)
    assert not is_password(home.path, "anna", f"{WORD} ")
    set_password(home, "anna", "another one here")
    assert not is_password(home.path, "anna", WORD)
    remove_person(home, "anna")
    assert people(home.path) == ["ben"]
    assert not is_password(home.path, "anna", "another one here")


def test_the_file_is_the_owners_alone_and_holds_no_password(tmp_path: Path) -> None:
    home = a_home(tmp_path / "centre")
    for name in ("anna", "ben"):
        set_password(home, name, WORD)
    path = home.path / FOLDER / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())
    assert WORD not in path.read_text()
    # The same password of two people does not show.
    assert kept["anna"]["salt"] != kept["ben"]["salt"]
    assert kept["anna"]["hash"] != kept["ben"]["hash"]


@pytest.mark.parametrize(
    ("name", "word", "told"),
    [
        ("anna", "short", "has 5 characters"),
        ("anna", "x" * 1025, "has 1025 characters"),
        ("Anna!", WORD, "is not allowed"),
        ("", WORD, "is not allowed"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, name: str, word: str, told: str) -> None:
    with pytest.raises(passwords.PasswordError, match=told):
        set_password(a_home(tmp_path / "centre"), name, word)


def test_nobody_is_removed_who_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(passwords.PasswordError, match="nobody"):
        remove_person(a_home(tmp_path / "centre"), "anna")
