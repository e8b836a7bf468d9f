import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.cli import main
from common.certificates import fingerprint, read_certificate
from server.federation.enrolment import admit
from server.federation.home import Home
from tests.server.federation.homes import a_home

FILE = "st-marys.admission.json"


class Command:
    """Runs wardround-site in the folder of st-marys."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._capsys = patch, capsys
        (folder / "site.yaml").write_text("name: st-marys\nmanifest: m.csv\n")
        patch.chdir(folder)

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["wardround-site", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        told = self._capsys.readouterr()
        return int(str(end.value.code or 0)), told.out, told.err

    def bad(self, *words: object) -> str:
        """Run what must fail; returns the one line that was told."""
        code, out, told = self(*words)
        assert (code, out, told.count("\n")) == (2, "", 1)
        return told


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs wardround-site at a hospital that has not enrolled."""
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The centre."""
    return a_home(tmp_path / "centre", now=datetime.now(UTC))


def _admit(home: Home, days: int = 180) -> None:
    request = Path("st-marys.csr").read_bytes()
    made = admit(home, request, "st-marys", datetime.now(UTC), days)
    Path(FILE).write_bytes(made.to_bytes())


def test_a_hospital_enrolls_and_joins(command: Command, home: Home) -> None:
    code, out, _ = command("enroll", "--name", "st-marys")
    assert (code, "admit st-marys.csr --name st-marys" in out) == (0, True)
    _admit(home)
    told = fingerprint(read_certificate(home.ca_certificate))
    code, out, _ = command("join", FILE)
    assert (code, told in out, "by telephone" in out) == (0, True, True)
    code, out, _ = command("join", FILE, "--ca-fingerprint", told)
    assert (code, "telephone" in out) == (0, False)
    # A second later a whole day is begun.
    assert re.search("1(79|80) days left", out)


def test_the_name_is_that_of_the_settings(command: Command) -> None:
    assert command("enroll", "--out", "x.csr")[0] == 0
    assert Path("x.csr").exists()
    told = command.bad("enroll", "--name", "st-johns")
    assert "st-marys" in told
    assert "st-johns" in told
    Path("site.yaml").write_text("manifest: m.csv\n")
    assert "--name" in command.bad("enroll")
    assert command("enroll", "--name", "st-johns")[0] == 0


def test_a_certificate_that_ends_soon_is_warned_of(command: Command, home: Home) -> None:
    command("enroll")
    _admit(home, days=20)
    assert "warning" in command("join", FILE)[1]


def test_bad_input_is_told_in_one_line(command: Command, home: Home) -> None:
    assert "absent.yaml" in command.bad("enroll", "--site", "absent.yaml")
    assert "absent.json" in command.bad("join", "absent.json")
    command("enroll")
    assert "no admission file" in command.bad("join", "site.yaml")
    _admit(home)
    assert "64 digits" in command.bad("join", FILE, "--ca-fingerprint", "AB:CD")
    assert "do not join" in command.bad("join", FILE, "--ca-fingerprint", "ab" * 32)
    Path("site.yaml").write_text("name: St Mary's\nmanifest: m.csv\n")
    assert "not allowed" in command.bad("enroll")
