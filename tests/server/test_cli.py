import json
import sys
from pathlib import Path

import pytest

from common.certificates import fingerprint, read_certificate
from common.secret_files import replace_file
from server.cli import main
from tests.server.federation.homes import a_home, a_request


class Outcome:
    """What a command told, and its exit code."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = int(str(code)), out, err


class Command:
    """Runs wardround-server in a folder."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._patch, self._capsys = folder, patch, capsys
        patch.chdir(folder)
        patch.delenv("WARDROUND_HOME", raising=False)

    def __call__(self, *words: object) -> Outcome:
        self._patch.setattr(sys, "argv", ["wardround-server", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        told = self._capsys.readouterr()
        return Outcome(end.value.code or 0, told.out, told.err)

    def bad(self, *words: object) -> str:
        """Run what must fail; returns the one line that was told."""
        outcome = self(*words)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        return outcome.err


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs wardround-server where there is no federation yet."""
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture
def federation(command: Command) -> Command:
    """Runs wardround-server beside a federation and the request of st-marys."""
    assert command("init", "--name", "Nordic chest", "--host", "localhost").code == 0
    replace_file(command.folder / "st-marys.csr", a_request("st-marys"))
    return command


def _fingerprint(command: Command) -> str:
    return fingerprint(read_certificate(command.folder / "federation" / "ca" / "ca.pem"))


def _sites(command: Command) -> dict[str, str]:
    body = json.loads(command("sites", "--json").out)
    return {site["name"]: site["status"] for site in body["sites"]}


def test_init_tells_the_fingerprint_and_is_done_once(command: Command) -> None:
    words = ("init", "--name", "f", "--host", "localhost", "--host", "::1", "--port", 9443)
    outcome = command(*words)
    assert outcome.code == 0
    assert _fingerprint(command) in outcome.out
    assert "holds a federation already" in command.bad(*words)


def test_admit_writes_the_admission_and_tells_the_fingerprint(federation: Command) -> None:
    outcome = federation("admit", "st-marys.csr", "--name", "st-marys")
    assert outcome.code == 0
    assert "180 days left" in outcome.out
    assert _fingerprint(federation) in outcome.out
    body = json.loads(Path("st-marys.admission.json").read_text())
    assert (body["site"], body["hosts"], body["port"]) == ("st-marys", ["localhost"], 8443)
    assert _sites(federation) == {"st-marys": "admitted"}


def test_revoke_and_rotate_tell_what_they_did(federation: Command) -> None:
    federation("admit", "st-marys.csr", "--name", "st-marys", "--days", 20)
    assert _sites(federation) == {"st-marys": "expiring"}
    assert "rotate st-marys" in federation("sites").out
    outcome = federation("rotate", "st-marys", "--out", "new.json")
    assert (outcome.code, Path("new.json").exists()) == (0, True)
    assert _sites(federation) == {"st-marys": "admitted"}
    Path("next.csr").write_bytes(a_request("st-marys"))
    assert federation("rotate", "st-marys", "--csr", "next.csr").code == 0
    assert federation("revoke", "st-marys", "--reason", "left [the] group").code == 0
    assert _sites(federation) == {"st-marys": "revoked"}
    assert "revoked" in federation("sites").out
    assert "admit FILE" in federation.bad("rotate", "st-marys")


def test_the_servers_certificate_is_renewed_for_the_hosts_of_today(federation: Command) -> None:
    path = federation.folder / "federation"
    before = (path / "server" / "server.key").read_bytes()
    text = (path / "federation.yaml").read_text()
    (path / "federation.yaml").write_text(text.replace("localhost", "new.example.org"))
    assert "365 days left" in federation("rotate", "--server").out
    assert (path / "server" / "server.key").read_bytes() == before
    certificate = read_certificate(path / "server" / "server.pem")
    assert b"new.example.org" in certificate.tbs_certificate_bytes
    assert federation("rotate", "--server", "--new-key").code == 0
    assert (path / "server" / "server.key").read_bytes() != before


@pytest.mark.parametrize(
    "words",
    [
        ("rotate",),
        ("rotate", "st-marys", "--server"),
        ("rotate", "st-marys", "--new-key"),
        ("rotate", "--server", "--csr", "st-marys.csr"),
    ],
)
def test_rotate_takes_a_site_or_the_server(federation: Command, words: tuple[str, ...]) -> None:
    assert "either a site" in federation.bad(*words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("admit", "absent.csr", "--name", "st-marys"), "absent.csr"),
        (("admit", "federation/ca/ca.key", "--name", "st-marys"), "private key"),
        (("admit", "federation/federation.yaml", "--name", "st-marys"), "no signing request"),
        (("admit", "st-marys.csr", "--name", "st/marys"), "not allowed"),
        (("admit", "st-marys.csr", "--name", "st-johns"), "'st-marys'"),
        (("admit", "st-marys.csr", "--name", "st-marys", "--days", 0), "days=0"),
        (("admit", "st-marys.csr", "--name", "st-marys", "--out", "no/such/x"), "no/such"),
        (("admit", "st-marys.csr"), "--name"),
        (("revoke", "st-johns"), "no site 'st-johns'"),
        (("rotate", "st-johns"), "no site 'st-johns'"),
        (("sites", "--home", "elsewhere"), "no federation's home"),
        (("init", "--name", "f", "--host", "http://x", "--home", "other"), "no host name"),
        (("bogus",), "bogus"),
    ],
)
def test_bad_input_is_told_in_one_line(
    federation: Command, words: tuple[object, ...], told: str
) -> None:
    assert told in federation.bad(*words)


def test_the_home_is_found_by_its_variable(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_home(command.folder / "fed")
    monkeypatch.setenv("WARDROUND_HOME", str(command.folder / "fed"))
    assert command("sites").code == 0
    assert _sites(command) == {}
