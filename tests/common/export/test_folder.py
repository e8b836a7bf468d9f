"""From the command line: a model exported, signed, verified, and found changed."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from torch import Tensor, nn

import client.cli
import server.cli
from common.export.card import Said
from common.export.folder import export
from common.export.provenance import verify
from common.finished import Finished, load_finished
from common.schema import SettingsError
from server.federation.home import FederationSettings, make_home
from tests.builders import PICTURES
from tests.finished import finished_run


class Command:
    """Runs a command line."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = patch, capsys

    def __call__(self, *words: object) -> tuple[int, str]:
        self._patch.setattr(sys, "argv", list(map(str, words)))
        main = client.cli.main if words[0] == "wardround-site" else server.cli.main
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capsys.readouterr()
        return int(end.value.code or 0), out + err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line."""
    return Command(monkeypatch, capsys)


def test_the_centre_signs_and_a_hospital_verifies(tmp_path: Path, command: Command) -> None:
    settings = FederationSettings(name="ours", hosts=["centre.example.org"])
    home = make_home(tmp_path / "home", settings, datetime.now(UTC))
    run = finished_run(home.runs / "2026_tiny", *PICTURES)
    output = tmp_path / "out"
    # By its folder: only studies that were asked for have a name.
    code, told = command(
        "wardround-server",
        "export",
        run,
        "--output",
        output,
        "--home",
        home.path,
        "--form",
        "torch",
    )
    assert code == 0, told
    assert "signed by wardround server" in told
    check = ("wardround-site", "verify", output, "--authority", home.ca_certificate)
    code, told = command(*check)
    assert (code, "every file is as it was exported" in told) == (0, True), told
    (output / "card.html").write_text("better")
    code, told = command(*check)
    assert (code, "WRONG    card.html was changed" in told) == (1, True), told


class CountsImages(nn.Module):
    """A network that no graph can hold: its answer hangs on the number of images, in Python."""

    def forward(self, images: Tensor) -> Tensor:
        return images * len(images.tolist())


def test_a_form_that_cannot_be_made_is_told_and_the_card_is_there(tmp_path: Path) -> None:
    finished = load_finished(finished_run(tmp_path / "run", *PICTURES))
    odd = Finished(**{**vars(finished), "network": CountsImages().eval()})
    found = export(odd, tmp_path / "out", ["torch", "bundle"], Said(), None)
    assert found.written == []
    assert set(found.refused) == {"torch", "bundle"}
    assert all(why.startswith("cnn cannot be exported") for why in found.refused.values())
    assert verify(tmp_path / "out", None).wrong == []
    assert (tmp_path / "out" / "card.html").is_file()


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path, command: Command) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    run = finished_run(tmp_path / "run", *PICTURES)
    code, told = command("wardround-site", "export", run, "--output", tmp_path / "out")
    assert (code, "holds something, which would be signed too" in told) == (2, True)
    words = ("wardround-site", "export", run, "--output", tmp_path / "new", "--form", "caffe")
    assert "choose one of: bundle, onnx, torch" in command(*words)[1]


def test_nothing_is_sealed_that_this_export_did_not_write(tmp_path: Path) -> None:
    first = load_finished(finished_run(tmp_path / "a", *PICTURES))
    export(first, tmp_path / "out", ["torch"], Said(), None)
    (tmp_path / "out" / "more.py").touch()
    other = load_finished(finished_run(tmp_path / "b", *PICTURES, "seed=7"))
    with pytest.raises(SettingsError, match="would be signed too"):
        export(other, tmp_path / "out", ["torch"], Said(), None)
    assert verify(tmp_path / "out", None).wrong == ["more.py was added"]
    assert verify(tmp_path / "out", None).provenance["study_digest"] == first.digest


def test_a_library_that_is_missing_costs_its_own_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = load_finished(finished_run(tmp_path / "run", *PICTURES))
    # As Python has it of a module that is not installed.
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    found = export(finished, tmp_path / "out", ["onnx", "torch"], Said(), None)
    assert found.written == ["torch"]
    assert "pip install 'wardround[export]'" in found.refused["onnx"]


def test_an_export_that_ends_early_leaves_nothing_behind(tmp_path: Path) -> None:
    finished = load_finished(finished_run(tmp_path / "run", *PICTURES))
    lost = Finished(**{**vars(finished), "weights": tmp_path / "lost.safetensors"})
    with pytest.raises(FileNotFoundError):
        export(lost, tmp_path / "out", [], Said(), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_a_folder_says_of_itself_is_shown_and_not_obeyed(
    tmp_path: Path, command: Command
) -> None:
    finished = load_finished(finished_run(tmp_path / "run", *PICTURES))
    export(finished, tmp_path / "out", [], Said(), None)
    told = json.loads((tmp_path / "out" / "provenance.json").read_text())
    told |= {"study": "x\x1b[8m", "participants": [1]}
    (tmp_path / "out" / "provenance.json").write_text(json.dumps(told))
    (tmp_path / "out" / "card.html").write_text("better")
    code, said = command("wardround-site", "verify", tmp_path / "out")
    assert (code, "\x1b" in said, "WRONG    card.html was changed" in said) == (1, False, True)


def test_a_home_that_is_not_there_is_told_where_it_was_named(
    tmp_path: Path, command: Command
) -> None:
    run = finished_run(tmp_path / "run", *PICTURES)
    words = ("wardround-server", "export", run, "--output", tmp_path / "out", "--form", "torch")
    code, said = command(*words, "--home", tmp_path / "typo")
    assert (code, "is no federation's home" in said) == (2, True), said
    assert not (tmp_path / "out").exists()
