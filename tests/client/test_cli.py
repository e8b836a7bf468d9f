import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from client.cli import main
from client.privacy.ledger import Ledger
from client.privacy.ledger_store import head_path
from common.accounting import unprotected_release
from tests.client.privacy.ledgers import charged, data_set, tampered


class Outcome:
    """What a command told, and its exit code."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = int(str(code)), out, err


class Command:
    """Runs wardround-site in a hospital's folder."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._patch, self._capsys = folder, patch, capsys
        (folder / "site.yaml").write_text("name: st-a\nmanifest: m.csv\n")
        self.ledgers = folder / "state" / "ledgers"
        patch.chdir(folder)

    def __call__(self, *words: object) -> Outcome:
        self._patch.setattr(sys, "argv", ["wardround-site", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        told = self._capsys.readouterr()
        return Outcome(end.value.code or 0, told.out, told.err)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs wardround-site in a hospital without a ledger."""
    return Command(tmp_path, monkeypatch, capsys)


def test_show_tells_every_charge_and_the_totals(command: Command) -> None:
    ledger = charged(command.ledgers, 3)
    outcome = command("ledger", "show", "--delta", "0.01")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.strip("│┃ ").split() for line in outcome.out.splitlines()]
    charges = [line for line in lines if "training" in line]
    assert [line[4] for line in charges] == ["│"] * 3
    epsilons = {f"{ledger.epsilon(0.01, study):.3f}" for study in (None, "study-0", "study-1")}
    life = f"{ledger.epsilon(0.01):.3f}"
    assert charges[-1][-1] == life
    totals = {line[-1] for line in lines if {"for", "study"} & set(line[:1])}
    assert totals - {"epsilon", "far"} == epsilons
    assert "3 patients, 4 rows, delta 0.01" in outcome.out


def test_what_left_without_privacy_is_told_as_infinite(command: Command) -> None:
    ledger = charged(command.ledgers, 1)
    ledger.charge("plain", "study-p", unprotected_release(), "training")
    outcome = command("ledger", "show")
    plain = [line.strip("│┃ ").split() for line in outcome.out.splitlines() if "study-p" in line]
    assert (outcome.code, [line[-1] for line in plain][:1]) == (0, ["infinite"])
    assert command("ledger", "export", "board.json").code == 0
    told = json.loads(Path("board.json").read_text())["epsilon"]
    assert told["life"] is told["studies"]["study-p"] is None


def test_delta_is_one_over_twice_the_patients_unless_said(command: Command) -> None:
    charged(command.ledgers, 1)
    assert "delta 0.167" in command("ledger", "show").out


@pytest.mark.parametrize("delta", ["0", "0.5", "-1", "nan"])
def test_a_delta_above_one_over_the_patients_is_refused(command: Command, delta: str) -> None:
    charged(command.ledgers, 1)
    outcome = command("ledger", "show", "--delta", delta)
    assert outcome.code == 2
    assert "at most 1 / 3 patients" in outcome.err


def test_show_and_verify_take_one_file_and_need_no_lock(command: Command) -> None:
    ledger = charged(command.ledgers, 1)
    shutil.move(command.folder / "site.yaml", command.folder / "other.yaml")
    with ledger.exclusive():
        for word in ("show", "verify"):
            outcome = command("ledger", word, "--file", ledger.path)
            assert (outcome.code, outcome.err) == (0, "")
            assert str(ledger.path) in outcome.out


def test_verify_says_whole_or_what_is_broken(command: Command) -> None:
    ledger = charged(command.ledgers, 2)
    assert re.match(
        rf"whole: {ledger.path}, 3 rows, head [0-9a-f]{{64}}",
        command("ledger", "verify", "--site", "site.yaml").out,
    )
    tampered(ledger.path, "UPDATE rows SET body = replace(body, '5', '4') WHERE seq = 2")
    outcome = command("ledger", "verify")
    assert (outcome.code, outcome.out) == (1, "")
    assert "row 2 was changed" in outcome.err


def test_verify_finds_a_ledger_that_is_gone(command: Command) -> None:
    charged(command.ledgers, 1).path.unlink()
    outcome = command("ledger", "verify")
    assert outcome.code == 1
    assert "the ledger is gone" in outcome.err


def test_an_export_is_verified_alone_and_against_the_ledger(command: Command) -> None:
    ledger = charged(command.ledgers, 2)
    Ledger.open(command.ledgers, data_set("b", ("q0",)))
    older = command.folder / "older"
    shutil.copytree(command.ledgers, older)
    ledger.charge("new", "study-0", ledger.history()[0], "evaluation")
    written = command("ledger", "export", "e.json", "--file", ledger.path)
    assert (written.code, written.err) == (0, "")
    key = json.loads(Path("e.json").read_text())["public_key"]
    assert key in written.out
    alone = command("ledger", "verify", "--export", "e.json")
    assert alone.code == 0
    assert key in alone.out
    beside = command("ledger", "verify", "--site", "site.yaml", "--export", "e.json")
    assert beside.code == 0
    assert f"goes on from the export: {ledger.path}" in beside.out
    back = command("ledger", "verify", "--file", older / ledger.path.name, "--export", "e.json")
    assert back.code == 1
    assert "put back to an older state" in back.err


def test_a_changed_export_is_told(command: Command) -> None:
    ledger = charged(command.ledgers, 1)
    command("ledger", "export", "e.json")
    text = Path("e.json").read_text()
    Path("e.json").write_text(text.replace('"patients": 3', '"patients": 300', 1))
    outcome = command("ledger", "verify", "--export", "e.json")
    assert outcome.code == 1
    assert "signature does not fit" in outcome.err
    assert head_path(ledger.path).exists()


def test_of_several_ledgers_one_must_be_chosen_for_an_export(command: Command) -> None:
    charged(command.ledgers, 1)
    Ledger.open(command.ledgers, data_set("b", ("q0",)))
    outcome = command("ledger", "export", "e.json")
    assert outcome.code == 2
    assert "choose one with --file" in outcome.err
    assert command("ledger", "verify").out.count("whole") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ledger", "show"), "holds no ledger"),
        (("ledger", "show", "--file", "no.ledger"), "there is no such ledger"),
        (("ledger", "verify", "--file", "no.ledger"), "there is no such ledger"),
        (("ledger", "show", "--site", "no.yaml"), "cannot be read as a site's settings"),
        (("ledger", "show", "--site", "a", "--file", "b"), "give one of them"),
        (("ledger", "show", "--delta", "much"), "'much' is not a valid float"),
        (("ledger", "show", "--gamma", "1"), "--gamma"),
        (("ledger", "export"), "FILE"),
        (("ledger", "burn"), "burn"),
        (("burn",), "burn"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, words: tuple[str, ...], told: str
) -> None:
    outcome = command(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert told in outcome.err


def test_an_export_that_cannot_be_written_is_told(command: Command) -> None:
    charged(command.ledgers, 1)
    Path("file").write_text("")
    outcome = command("ledger", "export", "file/e.json")
    assert outcome.code == 2
    assert "choose another file" in outcome.err


def test_help_names_the_commands(command: Command) -> None:
    outcome = command("ledger", "--help")
    assert outcome.code == 0
    assert all(word in outcome.out for word in ("show", "verify", "export"))
