import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from client.approval import APPROVED, PROPOSED, REJECTED, Approvals
from client.cli import main
from common.config import load_study, study_digest
from tests.builders import PICTURES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRIVATE = (*PICTURES, "privacy.mechanism=dp_sgd", "privacy.target_epsilon=3.0", "rounds=7")


class Command:
    """Runs wardround-site in a hospital's folder."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "site.yaml").write_text("name: st-a\nmanifest: m.csv\n")
        self.folder, self.approvals = folder, Approvals(folder / "state")
        self._patch, self._capsys = patch, capsys
        patch.chdir(folder)
        patch.setenv("SUDO_USER", "anna")

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["wardround-site", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        told = self._capsys.readouterr()
        return int(str(end.value.code or 0)), told.out, told.err

    def propose(self, *overrides: str, name: str = "smoke") -> str:
        digest = study_digest(load_study(overrides))
        self.approvals.propose(digest, name, overrides, NOW)
        return digest


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


def test_a_proposed_study_is_told_in_plain_words(command: Command) -> None:
    digest = command.propose(*PRIVATE)
    code, out, err = command("studies")
    assert (code, err) == (0, "")
    for words in (
        digest,
        PROPOSED,
        "classification",
        "cnn",
        "7, each of one pass over the training patients",
        "auroc leave, with noise 2",
        "of each patient, epsilon 3 for all rounds",
        "epsilon 3 a patient at most for its training; this site's policy ends it at 8",
        f"wardround-site approve {digest[:16]}",
    ):
        assert words in out


def test_a_study_without_privacy_says_so_loudly(command: Command) -> None:
    command.propose(*PICTURES, "training.local_steps=5", "training.batch_size=4")
    _, out, _ = command("studies")
    assert "NO privacy; this site's policy refuses that" in out
    assert "2, each of 5 steps of 4" in out
    (command.folder / "site.yaml").write_text("name: st-a\nmanifest: m\npolicy: p.yaml\n")
    values = {"privacy": {"required": False}, "may_leave": {"metrics": {}}}
    (command.folder / "p.yaml").write_text(yaml.safe_dump(values))
    _, out, _ = command("studies")
    assert "NO privacy\n" in out
    assert "none leaves; 4 others stay" in out


def test_a_study_is_approved_and_rejected_by_a_few_digits_and_by_whom(command: Command) -> None:
    digest = command.propose(*PICTURES)
    assert command("approve", digest[:16]) == (0, f"approved: {digest}\n", "")
    assert command.approvals.status(digest) == APPROVED
    assert command("reject", digest) == (0, f"rejected: {digest}\n", "")
    (told,) = json.loads(command("studies", "--json")[1])
    assert (told["status"], told["decided_by"]) == (REJECTED, "anna")
    assert "by anna" in command("studies")[1]


def test_a_study_of_the_policys_list_is_told_as_approved(command: Command) -> None:
    digest = command.propose(*PICTURES)
    (command.folder / "site.yaml").write_text("name: st-a\nmanifest: m\npolicy: p.yaml\n")
    (command.folder / "p.yaml").write_text(f"studies: {{approved: [{digest}]}}")
    (told,) = json.loads(command("studies", "--json")[1])
    assert told["status"] == APPROVED


@pytest.mark.parametrize("words", [("approve", "abc"), ("reject", "0" * 8), ("approve", "zz" * 32)])
def test_digits_of_no_study_are_told_in_one_line(command: Command, words: tuple[str, str]) -> None:
    code, out, err = command(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "wardround-site studies" in err.replace("`", "")


def test_a_site_that_was_asked_for_nothing_says_so(command: Command) -> None:
    assert "no study was proposed here yet" in command("studies")[1]
    assert json.loads(command("studies", "--json")[1]) == []


def test_what_the_installed_version_does_not_compose_is_told_as_that(command: Command) -> None:
    command.approvals.propose("ab" * 32, "x", ["no.such=1"], NOW)
    command.approvals.propose("cd" * 32, "x", list(PICTURES), NOW)
    command("approve", "ef" * 32)
    _, out, _ = command("studies")
    assert "cannot compose it" in out
    assert "composes another study" in out
    assert "not yet" in out


def test_a_name_from_outside_can_play_no_tricks_on_a_screen(command: Command) -> None:
    tricks = "\x1b[2J[bold red]x[/]\n" + "y" * 300
    command.approvals.propose("ab" * 32, tricks, ["no.such=1"], NOW)
    for told in (command("studies")[1], command("studies", "--json")[1]):
        assert "\x1b" not in told
        assert "y" * 300 not in told


def test_an_answer_loads_no_torch(command: Command) -> None:
    code = (
        "import sys; from client.cli import app;"
        "app(['approve', 'ab' * 32], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", code]
    ran = subprocess.run(
        words, cwd=command.folder, env={"PYTHONPATH": str(root)}, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert command.approvals.status("ab" * 32) == APPROVED
