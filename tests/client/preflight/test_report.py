import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from client.cases import read_case
from client.preflight.card import DATA, PAGE, lines_of, write_card
from client.preflight.findings import STOP, WARNING, Finding
from client.preflight.report import GO, NO_GO, Report, preflight
from common.data_config import DataConfig
from common.tasks.classification import ClassificationConfig
from common.tasks.config import UnlabelledConfig
from tests.dicoms import (
    header,
    square_mm,
    stored_volume,
    with_pixels,
    write_contours,
    write_segmentation,
    write_series,
)


def found(report: Report, kind: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.kind == kind]


def found_places(report: Report, kind: str) -> tuple[str, ...]:
    return tuple(place for finding in found(report, kind) for place in finding.at)


def picture(path: Path, seed: int, **keywords: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **keywords)
    return path.name


def manifest(folder: Path, *rows: dict[str, str]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def test_whole_pictures_are_go(tmp_path: Path) -> None:
    rows = [
        {"image": picture(tmp_path / f"{i}.png", i), "label": "ab"[i % 2], "patient": f"p{i}"}
        for i in range(4)
    ]
    report = preflight(manifest(tmp_path, *rows))
    assert (report.verdict, report.findings) == (GO, ())
    assert (report.patients, report.images, report.read) == (4, 4, 4)
    assert report.classes == {"a": 2, "b": 2}
    assert report.sizes == {"16 x 16": 4}


def test_each_thing_that_stops_is_found(tmp_path: Path) -> None:
    ordinary = {"label": "a", "split": "train"}
    for i in range(4):
        picture(tmp_path / f"{i}.png", i)
    picture(tmp_path / "twin.png", 0, compress_level=0)
    (tmp_path / "broken.png").write_text("no")
    report = preflight(
        manifest(
            tmp_path,
            {"image": "0.png", "patient": "p0", **ordinary},
            {"image": "1.png", "patient": "p1", **ordinary},
            {"image": "2.png", "patient": "p1", "label": "a", "split": "test"},
            {"image": "3.png", "patient": "p3", **ordinary, "age": "50"},
            {"image": "twin.png", "patient": "p4", **ordinary},
            {"image": "broken.png", "patient": "p5", **ordinary},
            {"image": "gone.png", "patient": "p6", **ordinary},
        )
    )
    assert report.verdict == NO_GO
    assert (report.images, report.read) == (7, 5)
    assert found(report, "two sides")[0].at == ("p1",)
    (twin,) = found(report, "duplicate")
    assert (twin.level, twin.at) == (STOP, ("0.png = twin.png",))
    assert [f.at for f in found(report, "unreadable")] == [("broken.png",), ("gone.png",)]
    (missing,) = found(report, "missing")
    assert (missing.level, missing.text) == (WARNING, "no age of patients")
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels)


def test_a_mask_that_does_not_fit_stops_and_its_image_is_named(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, depth in (("a", 4), ("b", 5)):
        ramp = np.arange(4 * 4 * 4, dtype=np.float32).reshape(4, 4, 4)
        nib.save(
            nib.Nifti1Image(ramp + depth, np.diag([2, 2, 5, 1])), tmp_path / f"images/{name}.nii"
        )
        mask = np.zeros((4, 4, depth), np.uint8)
        mask[:2, :2, :1] = 3
        nib.save(nib.Nifti1Image(mask, np.diag([2, 2, 5, 1])), tmp_path / f"masks/{name}.nii")
    report = preflight(tmp_path)
    (misfit,) = found(report, "label")
    assert (misfit.level, misfit.at) == (STOP, ("masks/b.nii",))
    assert report.labels["3"].images == 1
    assert report.labels["3"].volume.median == pytest.approx(4 * 2 * 2 * 5 / 1000)
    assert report.orientations == {"RAS": 1}


def test_fields_of_a_picture_that_may_name_a_patient_are_found(tmp_path: Path) -> None:
    text, exif = PngInfo(), Image.Exif()
    text.add_text("Patient", "Doe")
    exif[ExifTags.Base.Artist] = "House"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = 1.0
    picture(tmp_path / "a" / "png.png", 0, pnginfo=text)
    picture(tmp_path / "a" / "jpg.jpg", 1, exif=exif)
    picture(tmp_path / "b" / "plain.png", 2)
    report = preflight(tmp_path)
    told = {finding.at[0]: finding.text for finding in found(report, "identifying header")}
    assert told["a/png.png"].endswith("1 fields that may name a patient: Patient")
    assert "Exif Artist, Exif GPS GPSLatitude" in told["a/jpg.jpg"]
    assert set(told) == {"a/png.png", "a/jpg.jpg"}
    assert "Doe" not in str(report)


def test_dicom_series_get_their_segmentations_and_scanners(tmp_path: Path) -> None:
    series = write_series(tmp_path / "p1" / "ct", MagneticFieldStrength=3)
    mask = np.zeros(stored_volume().shape, np.uint8)
    mask[1, :2, :3] = 1
    write_segmentation(tmp_path / "p1" / "seg.dcm", series, {1: mask})
    report = preflight(tmp_path)
    assert (report.images, report.read, report.patients) == (1, 1, 1)
    assert report.labels["1"].volume.median == pytest.approx(6 * 30 / 1000)
    assert (report.scanners, report.field_t) == ({"ACME": 1}, {"3": 1})
    assert report.orientations == {"LPS": 1}
    (header,) = found(report, "identifying header")
    for name in ("PatientName", "PatientID", "ReferringPhysicianName", "StudyDate"):
        assert name in header.text
    assert "Doe" not in str(report)


def test_texts_behind_the_pixels_and_headers_of_masks_are_looked_at_too(tmp_path: Path) -> None:
    behind = PngInfo()
    behind.add(b"tEXt", b"Patient\0Doe", after_idat=True)
    picture(tmp_path / "a.png", 1, pnginfo=behind)
    note = PngInfo()
    note.add_text("Comment", "Doe")
    picture(tmp_path / "b.png", 2)
    picture(tmp_path / "mask.png", 3, pnginfo=note)
    report = preflight(
        manifest(
            tmp_path,
            {"image": "a.png", "mask": "mask.png", "patient": "1"},
            {"image": "b.png", "mask": "mask.png", "patient": "2"},
        )
    )
    texts = {f.at: f.text.split(": ")[1] for f in found(report, "identifying header")}
    assert texts == {("a.png",): "Patient, Comment", ("b.png",): "Comment"}


def test_what_a_de_identified_file_should_have_emptied_is_told(tmp_path: Path) -> None:
    write_series(tmp_path / "a", PatientIdentityRemoved="YES", PatientName="4711")
    (told,) = found(preflight(tmp_path), "identifying header")
    assert "StudyDate" in told.text
    assert "PatientBirthDate" in told.text


def test_a_name_in_colour_is_found_beside_white(tmp_path: Path) -> None:
    for number, ink in enumerate(("red", "blue")):
        drawn = Image.new("RGB", (400, 120))
        draw = ImageDraw.Draw(drawn)
        draw.rectangle((300, 60, 390, 110), fill="white")
        font = ImageFont.load_default(24)
        draw.text((20, 10), "DOE JANE 19600102", fill=ink, font=font)
        drawn.save(tmp_path / f"{number}.png")
    assert found_places(preflight(tmp_path), "burned-in text") == ("0.png", "1.png")


def test_series_that_lie_together_are_told(tmp_path: Path) -> None:
    write_series(tmp_path / "all", stored_volume(2))
    for file in write_series(tmp_path / "other", stored_volume(1)):
        file.rename(tmp_path / "all" / "b.dcm")
    (tmp_path / "other").rmdir()
    write_contours(tmp_path / "rt.dcm", {1: [square_mm((0, 0), (2, 2), 0)]})
    report = preflight(tmp_path)
    assert report.images == 3
    (unsorted,) = found(report, "unsorted")
    assert (unsorted.level, unsorted.at) == (STOP, ("all",))


def test_reports_are_passed_over_and_radiographs_may_lie_together(tmp_path: Path) -> None:
    for number in range(2):
        kind = "1.2.840.10008.5.1.4.1.1.1.1"
        found = header(kind, "DX", PatientID=f"p{number}")
        with_pixels(found, stored_volume()[number]).save_as(
            tmp_path / f"{number}.dcm", enforce_file_format=True
        )
    header("1.2.840.10008.5.1.4.1.1.88.33", "SR").save_as(
        tmp_path / "report.dcm", enforce_file_format=True
    )
    report = preflight(tmp_path)
    assert (report.verdict, report.images) == (GO, 2)
    assert found_places(report, "passed over") == ("1 files",)


def test_two_segmentations_of_a_series_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct")
    write_series(tmp_path / "other", stored_volume() + 1)
    mask = np.zeros(stored_volume().shape, np.uint8)
    mask[1, :2, :3] = 1
    for name in ("a", "b"):
        write_segmentation(tmp_path / f"{name}.dcm", series, {1: mask})
    report = preflight(tmp_path)
    (several,) = found(report, "several masks")
    assert (several.level, several.at) == (STOP, ("ct (a.dcm, b.dcm)",))
    assert "--mapping" in several.text
    assert (report.verdict, report.images, report.read) == (NO_GO, 2, 2)
    report = preflight(tmp_path, mask_pattern="A*")
    assert found(report, "several masks") == []
    assert report.labels["1"].images == 1


def test_the_card_has_all_for_its_owner_alone(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "a" / "b.png", 0)
    (tmp_path / "d" / "a" / "<script>.png").write_text("no")
    report = preflight(tmp_path / "d")
    page = write_card(tmp_path / "card", "st-marys", report)
    html = page.read_text()
    assert page.name == PAGE
    assert "no-go" in html
    assert "<script" not in html
    assert "&lt;script&gt;.png" in html
    for name, words in lines_of(report):
        assert name in html
        assert words.split(",")[0] in html
    assert json.loads((tmp_path / "card" / DATA).read_text())["verdict"] == NO_GO
    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "card").iterdir()} == {0o600}


def test_everything_planted_in_real_headers_is_found(shared_data: Path) -> None:
    report = preflight(shared_data / "dicom" / "phi_headers")
    burned = {place for finding in found(report, "burned-in text") for place in finding.at}
    assert burned == {"RGB_IMAGE.dcm", "GREYSCALE_IMAGE.dcm"}
    told = {place: f.text for f in found(report, "identifying header") for place in f.at}
    assert set(told) == {"RGB_IMAGE.dcm", "GREYSCALE_IMAGE.dcm", "ctbrain1.dcm", "ctbrain2.dcm"}
    for text in told.values():
        for name in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "OtherPatientIDs",
            "AccessionNumber",
            "InstitutionName",
            "RequestingPhysician",
            "AdditionalPatientHistory",
            "private attributes",
        ):
            assert name in text
    assert "SIMPSON" not in str(report)


def test_images_without_labels_are_told_of_and_are_for_the_study_to_take(tmp_path: Path) -> None:
    rows = [
        {"image": picture(tmp_path / f"{i}.png", i), "label": "a" if i else "", "patient": f"p{i}"}
        for i in range(3)
    ]
    report = preflight(manifest(tmp_path, *rows))
    (missing,) = found(report, "missing")
    assert (report.verdict, missing.level, missing.at) == (NO_GO, STOP, ("0.png",))
    task = ClassificationConfig(name="classification", classes=["a", "b"])
    for learns, verdict in ((None, NO_GO), (UnlabelledConfig(), GO)):
        asked = replace(task, unlabelled=learns)
        told = preflight(
            manifest(tmp_path, *rows), check=lambda row, of=asked: read_case(row, DataConfig(), of)
        )
        assert told.verdict == verdict
