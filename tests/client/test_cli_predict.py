"""From the command line: every image has a row, and a broken one stops nothing."""

import csv
import json
import stat
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import DataElement, Dataset, config, dcmread

from client.cli import main
from client.prediction.run import Settings, _asked
from client.readers import read_image, read_mask
from common.finished import MODEL
from common.schema import SettingsError
from common.tasks.registry import build_task, task_config_type
from common.tensor_files import read_tensors, write_tensors
from tests.builders import PICTURES, SLICES, pictures_site, volumes_site
from tests.dicoms import write_series
from tests.finished import domain_at, finished_run


class Command:
    """Runs wardround-site predict."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = patch, capsys

    def __call__(self, model: Path, images: Path, output: Path, *more: str) -> tuple[int, str]:
        told = ["--model", str(model), "--input", str(images), "--output", str(output), *more]
        self._patch.setattr(sys, "argv", ["wardround-site", "predict", *told])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capsys.readouterr()
        return int(end.value.code or 0), out + err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs wardround-site predict."""
    return Command(monkeypatch, capsys)


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_volumes_get_masks_on_their_own_grid_and_rows_in_a_table(
    tmp_path: Path, command: Command
) -> None:
    volumes_site(tmp_path / "site", train=2, test=0)
    run = finished_run(tmp_path / "run", *SLICES, "data.size=[8,8]", "task.label_values=[5]")
    output = tmp_path / "out"
    code, told = command(run, tmp_path / "site" / "0.nii", output, "--tta", "flip")
    assert code == 0, told
    (row,) = rows_of(output)
    image, mask = nib.load(tmp_path / "site" / "0.nii"), nib.load(output / row["mask"])
    assert mask.shape == image.shape
    np.testing.assert_array_equal(mask.affine, image.affine)
    values = read_mask(output / row["mask"]).array_CS
    assert set(np.unique(values)) <= {0, 5}
    assert int(row["voxels_lesion"]) == int((values == 5).sum())
    assert float(row["ml_lesion"]) == pytest.approx(int(row["voxels_lesion"]) * 5 / 1000, abs=1e-3)
    assert row["domain"] == "unknown"
    assert "does not tell how its sites' images look" in row["domain_note"]
    about = json.loads((output / "about.json").read_text())
    assert (about["rounds"], about["test_time_augmentation"]) == (2, "flip")
    assert stat.S_IMODE(output.stat().st_mode) == 0o700


def test_a_study_says_whether_images_are_mirrored_unless_the_command_does(
    tmp_path: Path, command: Command
) -> None:
    pictures_site(tmp_path / "site", train=1, test=0)
    image = tmp_path / "site" / "0-0.png"
    run = finished_run(tmp_path / "run", *PICTURES, "task.mirrored=true")
    scores = []
    for output, more, told in (("a", (), "flip"), ("b", ("--tta", "none"), "none")):
        code, words = command(run, image, tmp_path / output, *more)
        assert code == 0, words
        about = json.loads((tmp_path / output / "about.json").read_text())
        assert about["test_time_augmentation"] == told
        scores.append(rows_of(tmp_path / output)[0]["score_pneumonia"])
    assert scores[0] != scores[1]


def test_a_broken_file_is_told_and_stops_nothing(tmp_path: Path, command: Command) -> None:
    site = pictures_site(tmp_path / "site", train=3, test=0).parent
    (site / "bad.png").write_bytes((site / "0-0.png").read_bytes()[:60])
    sites = {"a": {"patients_train": 50, "images_train": 50}}
    run = finished_run(tmp_path / "run", *PICTURES, domain=domain_at(5.0), sites=sites)
    code, told = command(run, site, tmp_path / "out")
    assert code == 3
    assert "broken: bad.png is broken or not a picture" in told
    assert "3 files of other kinds were left alone" in told
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert [row["status"] for row in rows.values()] == ["ok", "ok", "ok", "broken"]
    assert rows["0-0.png"]["answer"] in ("normal", "pneumonia")
    assert rows["0-0.png"]["domain"] == "outside"
    scores = [float(rows["0-0.png"][f"score_{name}"]) for name in ("normal", "pneumonia")]
    assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_of_patients_of_several_pictures_a_single_one_is_not_called_strange(
    tmp_path: Path, command: Command
) -> None:
    site = pictures_site(tmp_path / "site", train=1, test=0).parent
    sites = {"a": {"patients_train": 50, "images_train": 50}}
    sites["b"] = {"patients_train": 50, "images_train": 100}
    run = finished_run(tmp_path / "run", *PICTURES, domain=domain_at(5.0), sites=sites)
    code, told = command(run, site, tmp_path / "out")
    assert code == 0, told
    (row,) = rows_of(tmp_path / "out")
    assert (row["domain"], row["domain_distance"]) == ("unknown", "")
    assert "may have several images each" in row["domain_note"]


def test_an_image_that_cannot_be_answered_costs_no_other_and_the_table_is_there(
    tmp_path: Path, command: Command
) -> None:
    site = pictures_site(tmp_path / "site", train=3, test=0).parent
    # Its mask's name is longer than a file's may be.
    (site / "1-0.png").rename(site / f"{'b' * 251}.png")
    run = finished_run(tmp_path / "run", *SLICES)
    code, told = command(run, site, tmp_path / "out")
    assert code == 3, told
    rows = {row["file"][:3]: row for row in rows_of(tmp_path / "out")}
    assert {name: row["status"] for name, row in rows.items()} == {
        "0-0": "ok",
        "2-0": "ok",
        "bbb": "broken",
    }
    assert "File name too long" in rows["bbb"]["reason"]
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"0-0_mask.png", "2-0_mask.png", "about.json", "predictions.csv"}


def test_answers_that_are_no_numbers_are_told_image_by_image(
    tmp_path: Path, command: Command
) -> None:
    site = pictures_site(tmp_path / "site", train=2, test=0).parent
    run = finished_run(tmp_path / "run", *PICTURES)
    state, about = read_tensors(run / MODEL)
    broken = {name: torch.full_like(torch.as_tensor(t), torch.nan) for name, t in state.items()}
    write_tensors(run / MODEL, broken, about)
    assert command(run, site, tmp_path / "out")[0] == 1
    assert ["finite" in row["reason"] for row in rows_of(tmp_path / "out")] == [True, True]


def test_where_nothing_can_be_read_the_command_has_failed(tmp_path: Path, command: Command) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.nii").write_bytes(b"no volume")
    run = finished_run(tmp_path / "run", *SLICES)
    assert command(run, tmp_path / "images", tmp_path / "out")[0] == 1
    assert rows_of(tmp_path / "out")[0]["status"] == "broken"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tta", "spin"], "--tta='spin' is not known; choose one of: none, flip"),
        (["--threads", "0"], "--threads=0 is not allowed"),
    ],
)
def test_bad_choices_end_before_anything_is_read(
    tmp_path: Path, command: Command, more: list[str], told: str
) -> None:
    code, text = command(tmp_path, tmp_path, tmp_path / "out", *more)
    assert (code, told in text) == (2, True), text


@pytest.mark.parametrize(
    ("study", "option", "told"),
    [
        (SLICES, "--heat-maps", "this study answers with masks"),
        (PICTURES, "--entropy-maps", "this study answers an image as a whole"),
    ],
)
def test_a_map_that_the_study_does_not_have_is_refused(
    tmp_path: Path, command: Command, study: tuple[str, ...], option: str, told: str
) -> None:
    site = pictures_site(tmp_path / "site", train=1, test=0).parent
    run = finished_run(tmp_path / "run", *study)
    code, text = command(run, site, tmp_path / "out", option)
    assert (code, told in text) == (2, True), text


def test_entropy_maps_lie_where_the_masks_do(tmp_path: Path, command: Command) -> None:
    volumes_site(tmp_path / "site", train=1, test=0)
    run = finished_run(tmp_path / "run", *SLICES)
    command(run, tmp_path / "site" / "0.nii", tmp_path / "out", "--entropy-maps")
    entropy = nib.load(tmp_path / "out" / "0_entropy.nii.gz")
    assert entropy.shape == nib.load(tmp_path / "out" / "0_mask.nii.gz").shape
    values = np.asarray(entropy.dataobj)
    assert 0 <= values.min() < values.max() <= 1


def test_a_dicom_series_is_answered_by_a_dicom_segmentation(
    tmp_path: Path, command: Command
) -> None:
    write_series(tmp_path / "scans" / "first")
    write_series(tmp_path / "scans" / "second")
    (tmp_path / "scans" / "second" / "00.dcm").write_bytes(b"\0" * 128 + b"DICM")
    run = finished_run(tmp_path / "run", *SLICES, "data.size=[8,8]")
    code, told = command(run, tmp_path / "scans", tmp_path / "out")
    assert code == 3, told
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert rows["second"]["status"] == "broken"
    image = read_image(tmp_path / "scans" / "first", 1)
    mask = read_mask(tmp_path / "out" / rows["first"]["mask"], image)
    assert int((mask.array_CS == 1).sum()) == int(rows["first"]["voxels_lesion"])


def test_a_series_that_no_segmentation_can_refer_to_keeps_its_mask_as_nifti(
    tmp_path: Path, command: Command
) -> None:
    def nameless(_: int, one: Dataset) -> None:
        one.SOPClassUID = ""

    write_series(tmp_path / "ct", change=nameless)
    run = finished_run(tmp_path / "run", *SLICES, "data.size=[8,8]")
    assert command(run, tmp_path / "ct", tmp_path / "out")[0] == 0
    (row,) = rows_of(tmp_path / "out")
    assert "no DICOM-SEG can refer to" in row["reason"]
    image, mask = read_image(tmp_path / "ct", 1), read_mask(tmp_path / "out" / row["mask"])
    assert mask.array_CS.shape == image.array_CS.shape
    assert image.affine is not None
    assert mask.affine is not None
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)


def test_what_a_header_holds_stands_in_no_reason(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(_: int, one: Dataset) -> None:
        one.add(DataElement("PatientBirthDate", "DA", "01.02.1960", validation_mode=0))

    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    write_series(tmp_path / "ct", change=odd)
    monkeypatch.undo()
    run = finished_run(tmp_path / "run", *SLICES, "data.size=[8,8]")
    code, told = command(run, tmp_path / "ct", tmp_path / "out")
    assert code == 0, told
    (row,) = rows_of(tmp_path / "out")
    assert "no DICOM-SEG can refer to (ValueError)" in row["reason"]
    assert "1960" not in told + str(row)
    run = finished_run(tmp_path / "other", *PICTURES)
    code, told = command(run, tmp_path / "ct", tmp_path / "heat", "--heat-maps")
    (row,) = rows_of(tmp_path / "heat")
    assert (code, row["status"], row["answer"] != "") == (0, "ok", True), told
    assert "it has no heat map" in row["reason"]
    assert "1960" not in told + str(row)


def test_heat_maps_are_drawn_for_pictures_and_captured_for_dicom(
    tmp_path: Path, command: Command
) -> None:
    site = pictures_site(tmp_path / "site", train=1, test=0).parent
    write_series(site / "ct")
    run = finished_run(tmp_path / "run", *PICTURES)
    code, told = command(run, site, tmp_path / "out", "--heat-maps")
    assert code == 0, told
    with Image.open(tmp_path / "out" / "0-0_heat.png") as drawn:
        assert drawn.width > drawn.height
    capture = dcmread(tmp_path / "out" / "ct_heat.dcm")
    assert capture.Modality == "OT"
    assert "not for diagnosis" in capture.ImageComments


def test_an_image_that_the_task_makes_itself_is_not_looked_at_twice(tmp_path: Path) -> None:
    task = build_task(task_config_type("restoration")(name="restoration", out_channels=1))
    with pytest.raises(SettingsError, match=r"augmentation flip: task\.mirrored=true"):
        _asked(task, Settings(output=tmp_path, augmentation="flip"))
