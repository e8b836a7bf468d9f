"""From the command line: a model exported, signed, verified, and found changed."""

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
    assert (code, "holds files that are no export" in told) == (2, True)
    words = ("wardround-site", "export", run, "--output", tmp_path / "new", "--form", "caffe")
    assert "choose one of: bundle, onnx, torch" in command(*words)[1]
