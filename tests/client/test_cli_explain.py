"""From the command line: a patient's maps are drawn, and what cannot be is said in one line."""

import sys
from pathlib import Path

import pytest

from client.cli import main
from client.page import FOLDER
from client.site_data import cohort_of
from client.trainer import trainer_at
from common.config import study_digest
from tests.builders import (
    PICTURES,
    SLICES,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
    volumes_site,
)


class Command:
    """Runs wardround-site explain."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = patch, capsys

    def __call__(self, site: Path, *more: str) -> tuple[int, str]:
        self._patch.setattr(sys, "argv", ["wardround-site", "explain", "--site", str(site), *more])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capsys.readouterr()
        return int(end.value.code or 0), out + err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs wardround-site explain."""
    return Command(monkeypatch, capsys)


def ended(site: Path, *settings: str) -> tuple[str, str]:
    """End a study at a site; return its digest and one of its held-out patients."""
    request = request_for(*settings, round_number=2, evaluate=True)
    trainer_at(site).evaluate(request, initial_weights(*settings))
    held_out = cohort_of(trainer_at(site).site.manifest_path, settings).held_out
    return study_digest(study_from(*settings)), held_out.patients[0]


def test_a_patients_maps_are_listed_and_drawn(tmp_path: Path, command: Command) -> None:
    site = pictures_site(tmp_path / "a", train=8, test=6)
    digest, patient = ended(site, *PICTURES)
    code, told = command(site, "--study", digest[:8], "--case", patient)
    assert code == 0
    assert f"{patient}: why the model says" in told
    for method in (
        "grad_cam",
        "grad_cam_pp",
        "saliency",
        "integrated_gradients",
        "occlusion",
        "lime",
    ):
        assert method in told
    folder = trainer_at(site).site.state_path / FOLDER
    (picture,) = folder.glob("*.png")
    assert f"picture  {picture}" in told
    (page,) = folder.glob("*.html")
    assert f"page     {page}" in told


def test_one_method_alone_is_drawn_of_a_slice_with_its_verdict(
    tmp_path: Path, command: Command
) -> None:
    site = volumes_site(tmp_path / "a", train=2, test=1)
    digest, patient = ended(site, *SLICES)
    code, told = command(site, "--study", digest, "--case", patient, "--method", "saliency")
    assert code == 0
    (row,) = [line for line in told.splitlines() if "saliency" in line]
    assert "occlusion" not in told
    verdicts = ("peak in the lesion", "peak elsewhere", "without training!", "says nothing")
    assert any(verdict in row for verdict in verdicts)


def test_a_study_or_patient_that_is_not_here_is_said_in_one_line(
    tmp_path: Path, command: Command
) -> None:
    site = pictures_site(tmp_path / "a", train=8, test=6)
    digest, patient = ended(site, *PICTURES)
    for asked, said in (
        (("--study", "0000", "--case", patient), digest[:16]),
        (("--study", digest, "--case", "nobody"), "no held-out patient"),
        (("--study", digest, "--case", patient, "--method", "xray"), "xray"),
    ):
        code, told = command(site, *asked)
        assert code == 2
        assert told.startswith("error: ")
        assert said in told
        assert "Traceback" not in told


def test_what_is_not_installed_is_named(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = pictures_site(tmp_path / "a", train=2, test=1)
    for name in ("client.explanations", "client.explain"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # As Python has it of a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.setitem(sys.modules, "captum._utils.models.linear_model", None)
    code, told = command(site, "--study", "0000", "--case", "p")
    assert code == 2
    assert "pip install 'wardround[explain]'" in told
