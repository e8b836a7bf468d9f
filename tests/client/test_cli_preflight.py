import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.approval import Approvals
from client.cli import app
from client.cli_preflight import NO_GO_CODE
from common.config import study_digest
from tests.builders import PICTURES, SLICES, pictures_site, study_from, volumes_site


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = app(["preflight", *words], standalone_mode=False)
    return code or 0, capsys.readouterr().out


def test_a_site_is_go_and_has_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = pictures_site(tmp_path / "a")
    code, out = run(capsys, "--site", str(site))
    assert code == 0
    assert "6 (train: 4, test: 2)" in out
    assert out.split()[-1] == str(tmp_path / "a" / "state" / "cards" / "data-card.html")
    assert Path(out.split()[-1]).is_file()


def test_a_broken_file_is_no_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = pictures_site(tmp_path / "a")
    (tmp_path / "a" / "0-0.png").write_text("no")
    code, out = run(capsys, "--root", str(site.parent / "manifest.csv"), "--json")
    assert code == NO_GO_CODE
    report = json.loads(out)
    assert report["verdict"] == "no-go"
    assert report["findings"][0]["at"] == ["0-0.png"]


@pytest.mark.parametrize("private", [[], ["privacy.mechanism=dp_sgd", "privacy.target_epsilon=8"]])
def test_a_named_study_is_told_what_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], private: list[str]
) -> None:
    site = pictures_site(tmp_path / "a", train=5, test=0)
    _, out = run(capsys, "--site", str(site), "--json", *PICTURES, *private)
    cost = json.loads(out)["cost"]
    assert cost["private"] is bool(private)
    assert cost["steps"] >= 1
    assert cost["physical_batch"] >= 1
    assert cost["minutes"] > 0
    assert cost["memory_mb"] > 0


def test_slices_of_volumes_are_images_of_a_flat_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = volumes_site(tmp_path / "a", train=2, test=1, slices=5)
    study = ("experiment=smoke", *SLICES, "training.batch_size=1", "training.local_epochs=1")
    _, out = run(capsys, "--site", str(site), "--json", *study, "privacy=none")
    assert json.loads(out)["cost"]["steps"] == 2 * 5


def test_a_study_that_cannot_be_private_here_is_no_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = pictures_site(tmp_path / "a")
    private = ("privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1", "privacy.delta=0.9")
    code, out = run(capsys, "--site", str(site), "--json", *PICTURES, *private)
    assert code == NO_GO_CODE
    (finding,) = json.loads(out)["findings"]
    assert (finding["kind"], finding["level"]) == ("study", "stop")
    assert "privacy.delta=0.9 is more than 1/patients" in finding["text"]


def test_a_proposed_study_is_known_by_its_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = pictures_site(tmp_path / "a")
    digest = study_digest(study_from(*PICTURES))
    Approvals(tmp_path / "a" / "state").propose(digest, "a study", PICTURES, datetime.now(UTC))
    _, out = run(capsys, "--site", str(site), "--json", "--study", digest[:8])
    assert json.loads(out)["cost"]["steps"] >= 1
    with pytest.raises(ValueError, match="is 0 of the studies"):
        run(capsys, "--site", str(site), "--study", "0" * 8)


def test_one_place_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        app(["preflight"], standalone_mode=False)


def test_a_class_that_the_study_does_not_have_is_no_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = pictures_site(tmp_path / "a")
    code, out = run(capsys, "--site", str(site), "--json", *PICTURES, "task.classes=[normal,sick]")
    assert code == NO_GO_CODE
    report = json.loads(out)
    assert (report["images"], report["read"], report["unfit"]) == (6, 6, 3)
    assert sum(report["sizes"].values()) == 6
    (finding,) = report["findings"]
    assert finding["kind"] == "study"
    assert "'pneumonia', which the task does not have" in finding["text"]
    assert len(finding["at"]) == 3
