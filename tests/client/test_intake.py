import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import (
    CTImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)
from typer.testing import CliRunner

from client.cli import app
from client.cli_intake import SOME_REFUSED
from client.listing.folder import listing_of
from client.preflight.report import GO, preflight
from client.readers import BadFileError, read_image
from client.site_data import cohort_of
from tests.builders import SLICES
from tests.dicoms import (
    header,
    square_mm,
    stored_volume,
    with_pixels,
    write_contours,
    write_segmentation,
    write_series,
)


def site(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text("name: st-a\nmanifest: state/cohort/manifest.csv\n")
    return folder / "site.yaml"


def import_(root: Path, site_yaml: Path, *more: str) -> int:
    words = ["import", "--root", str(root), "--site", str(site_yaml), *more]
    return app(words, standalone_mode=False) or 0


def bytes_below(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_series_that_lay_together_have_folders_and_no_names(tmp_path: Path) -> None:
    series = write_series(tmp_path / "in")
    mask = np.zeros(stored_volume().shape, np.uint8)
    mask[1, :2, :3] = 1
    write_segmentation(tmp_path / "in" / "seg.dcm", series, {1: mask})
    write_series(tmp_path / "more", stored_volume(3), PatientID="MRN-4712")
    for file in (tmp_path / "more").iterdir():
        file.rename(tmp_path / "in" / f"x{file.name}")
    (tmp_path / "more").rmdir()
    assert import_(tmp_path / "in", site(tmp_path / "site")) == 0
    cohort = tmp_path / "site" / "state" / "cohort"
    report = preflight(cohort)
    assert (report.patients, report.images, report.verdict) == (2, 2, "no-go")
    # The segmentation still belongs to its series; the other series has none.
    assert report.labels["1"].images == 1
    assert [finding.kind for finding in report.findings] == ["missing"]
    for name in (b"Doeringer", b"MRN-4711", b"MRN-4712", b"House", b"19600102", b"20260102"):
        assert name not in bytes_below(tmp_path / "site")


def test_a_second_import_adds_only_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site_yaml = site(tmp_path / "site")
    write_series(tmp_path / "in" / "a")
    import_(tmp_path / "in", site_yaml)
    write_series(tmp_path / "in" / "b", stored_volume(2))
    capsys.readouterr()
    import_(tmp_path / "in", site_yaml)
    assert "2 of 6 images de-identified" in capsys.readouterr().out
    cohort = tmp_path / "site" / "state" / "cohort"
    # The same key: the new series is of the same patient.
    assert len(list(cohort.iterdir())) == 1
    assert preflight(cohort).verdict == GO


def test_the_log_has_names_of_attributes_and_no_value(tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    import_(tmp_path / "in", site(tmp_path / "site"))
    log = tmp_path / "site" / "state" / "deidentification.jsonl"
    (line,) = [json.loads(text) for text in log.read_text().splitlines()]
    assert line["images"] == 4
    assert line["attributes"]["emptied"]["StudyDate"] == 4
    assert line["attributes"]["renamed"]["SOPInstanceUID"] == 4
    for file in (log, log.with_name("pseudonyms.key")):
        assert file.stat().st_mode & 0o777 == 0o600
    for folder in log.with_name("cohort").glob("**/"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_site_can_find_a_patient_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site_yaml = site(tmp_path / "site")
    write_series(tmp_path / "in")
    import_(tmp_path / "in", site_yaml)
    capsys.readouterr()
    app(["pseudonym", "--patient", "MRN-4711", "--site", str(site_yaml)], standalone_mode=False)
    pseudonym = capsys.readouterr().out.strip()
    assert (tmp_path / "site/state/cohort" / pseudonym).is_dir()
    asked = CliRunner().invoke(app, ["pseudonym", "--site", str(site_yaml)], input="MRN-4711\n")
    assert asked.output.split() == ["PatientID:", "MRN-4711", pseudonym]


def test_the_index_of_a_disc_stands_for_its_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FileSet()
    for name in ("a", "b"):
        for file in write_series(tmp_path / "in" / name, PatientID=name):
            index.add(file)
    index.write(tmp_path / "disc")
    monkeypatch.chdir(tmp_path)
    disc = Path("disc", "DICOMDIR")
    assert [row.patient for row in listing_of(disc).rows] == ["a", "b"]
    report = preflight(disc)
    assert (report.images, report.read, report.patients) == (2, 2, 2)
    assert import_(disc, site(tmp_path / "site")) == 0
    assert preflight(tmp_path / "site" / "state" / "cohort").patients == 2


def test_what_cannot_be_cleaned_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "in" / "ok")
    pixels = stored_volume()[0].astype(np.uint8)
    unclean: dict[str, dict[str, Any]] = {
        "burned": {"BurnedInAnnotation": "YES"},
        "mosaic": {"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]},
        "nobody": {"PatientID": ""},
    }
    for name, changes in unclean.items():
        found = with_pixels(header(UltrasoundImageStorage, "US"), pixels, **changes)
        found.save_as(tmp_path / "in" / name, enforce_file_format=True)
    assert import_(tmp_path / "in", site(tmp_path / "site")) == SOME_REFUSED
    out = capsys.readouterr().out
    for word in ("text in its pixels", "Siemens mosaic", "no PatientID"):
        assert word in out
    assert "4 of 7 images" in out


def test_contours_still_refer_to_their_series(tmp_path: Path) -> None:
    series = write_series(tmp_path / "in")
    one = dcmread(series[0])
    write_contours(
        tmp_path / "in" / "rt.dcm",
        {1: [square_mm((0, 0), (3, 3), 1)]},
        series=str(one.SeriesInstanceUID),
        frame_of_reference=str(one.FrameOfReferenceUID),
    )
    import_(tmp_path / "in", site(tmp_path / "site"))
    cohort = tmp_path / "site" / "state" / "cohort"
    (row,) = listing_of(cohort).rows
    assert row.mask is not None
    report = preflight(cohort)
    assert report.labels["1"].images == 1
    assert (report.verdict, report.findings) == (GO, ())


TEXT = "ZZZTEST MARY 04041985"


def drawn(folder: Path, kind: str, **changes: object) -> Path:
    """Write a picture in colour with a name in it, and say things of it that may excuse it."""
    text = Image.new("RGB", (400, 80))
    ImageDraw.Draw(text).text((20, 20), TEXT, fill="white", font=ImageFont.load_default(24))
    found = header(kind, "US")
    found.Rows, found.Columns, found.SamplesPerPixel = 80, 400, 3
    found.PhotometricInterpretation, found.PlanarConfiguration = "RGB", 0
    found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.PixelRepresentation, found.PixelData = 0, text.tobytes()
    for name, value in changes.items():
        setattr(found, name, value)
    folder.mkdir(parents=True)
    found.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (UltrasoundImageStorage, {"ImagePositionPatient": None}),
        (UltrasoundImageStorage, {"ImagePositionPatient": [0, 0, 0]}),
        (UltrasoundImageStorage, {"Modality": "SEG"}),
        (MultiFrameTrueColorSecondaryCaptureImageStorage, {"ImagePositionPatient": [0, 0, 0]}),
        (CTImageStorage, {"ImagePositionPatient": [0, 0, 0], "ImageType": ["ORIGINAL", "PRIMARY"]}),
    ],
)
def test_no_attribute_excuses_a_name_in_the_pixels(
    tmp_path: Path, kind: str, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_(drawn(tmp_path / "in", kind, **changes), site(tmp_path / "s")) == SOME_REFUSED
    assert "text in its pixels" in capsys.readouterr().out
    assert not (tmp_path / "s" / "state" / "cohort").exists()


def test_another_image_under_the_same_uid_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site_yaml = site(tmp_path / "site")
    series = write_series(tmp_path / "in")
    import_(tmp_path / "in", site_yaml)
    one = dcmread(series[0])
    one.PixelData = one.PixelData[::-1]
    one.save_as(series[0])
    capsys.readouterr()
    assert import_(tmp_path / "in", site_yaml) == SOME_REFUSED
    out = capsys.readouterr().out
    assert "has the UID of another image that is there already" in out
    assert "0 of 4 images de-identified" in out


def test_files_without_the_mark_of_dicom_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in write_series(tmp_path / "in"):
        # The data set alone begins with its group 0008.
        content = file.read_bytes()
        file.with_suffix("").write_bytes(content[content.index(b"\x08\x00\x16\x00UI") :])
        file.unlink()
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    assert import_(tmp_path / "in", site(tmp_path / "site")) == SOME_REFUSED
    out = capsys.readouterr().out
    assert "and 3 more looks like DICOM without the header of a file" in out
    assert "0 of 4 images" in out


def test_a_cohort_is_not_imported_into_itself_nor_into_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site_yaml = site(tmp_path / "site")
    write_series(tmp_path / "in")
    import_(tmp_path / "in", site_yaml)
    capsys.readouterr()
    # The folder of all holds the site's own state.
    assert import_(tmp_path, site_yaml) == 0
    assert "0 of 4 images de-identified" in capsys.readouterr().out
    cohort = tmp_path / "site" / "state" / "cohort"
    assert import_(cohort, site(tmp_path / "other")) == SOME_REFUSED
    assert "and 3 more was imported before" in capsys.readouterr().out


def test_burned_in_names_of_real_images_do_not_get_in(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shared_data / "dicom" / "phi_headers"
    assert import_(root, site(tmp_path / "site")) == SOME_REFUSED
    # Two of the four are copies of one.
    assert "1 of 4 images" in capsys.readouterr().out
    for name in (b"SIMPSON", b"HIBBARD", b"SPRINGFIELD", b"00007041776", b"999887722"):
        assert name in bytes_below(root)
        assert name not in bytes_below(tmp_path / "site")


def test_imported_series_are_a_cohort_to_train_on(tmp_path: Path) -> None:
    for patient in ("1", "2", "3"):
        series = write_series(tmp_path / "in" / patient, PatientID=patient)
        uid = str(dcmread(series[0]).SeriesInstanceUID)
        outlines = {1: [square_mm((0, 0), (3, 3), int(patient))]}
        write_contours(tmp_path / "in" / f"{patient}.dcm", outlines, series=uid, patient=patient)
    import_(tmp_path / "in", site(tmp_path / "site"))
    folder = tmp_path / "site" / "state" / "cohort"
    app(["manifest", "--root", str(folder)], standalone_mode=False)
    cohort = cohort_of(folder / "manifest.csv", ("experiment=smoke", *SLICES))
    assert cohort.train.num_patients + cohort.held_out.num_patients == 3
    assert cohort.train.images.shape[1:] == (1, 16, 16)
    assert cohort.train.targets.any()


def over_time(folder: Path, times: int) -> None:
    """Write a series that goes through its places once, and then again."""
    volume = stored_volume(3)
    write_series(
        folder,
        np.concatenate([volume + 100 * time for time in range(times)]),
        lambda index, one: setattr(
            one, "ImagePositionPatient", [*one.ImagePositionPatient[:2], 2.0 * (index % 3)]
        ),
    )


@pytest.mark.parametrize("time", [1, 2, 3])
def test_one_volume_of_a_series_over_time_is_imported_where_it_is_asked_for(
    tmp_path: Path, time: int, capsys: pytest.CaptureFixture[str]
) -> None:
    over_time(tmp_path / "in" / "film", 3)
    # A copy of a picture is no time of its own.
    (tmp_path / "in" / "copy.dcm").write_bytes((tmp_path / "in" / "film" / "00.dcm").read_bytes())
    write_series(tmp_path / "in" / "still", stored_volume(3), PatientID="MRN-4712")
    with pytest.raises(BadFileError, match="--time-point 1"):
        read_image(tmp_path / "in" / "film", 1)
    site_yaml = site(tmp_path / "site")
    assert import_(tmp_path / "in", site_yaml, "--time-point", str(time)) == 0
    told = capsys.readouterr().out
    assert f"{7 - (time == 1)} of other time points left out" in told
    cohort = tmp_path / "site" / "state" / "cohort"
    found = [read_image(file, 1).array_CS for file in sorted(cohort.glob("*/*"))]
    still = read_image(tmp_path / "in" / "still", 1).array_CS
    expected = sorted(float(volume.mean()) for volume in (still, still + 200 * (time - 1)))
    assert sorted(float(volume.mean()) for volume in found) == pytest.approx(expected)


def test_a_time_point_that_a_series_has_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over_time(tmp_path / "in", 2)
    assert import_(tmp_path / "in", site(tmp_path / "site"), "--time-point", "3") == 3
    told = capsys.readouterr().out
    assert "holds a series of 2 volumes, and no time point 3; give --time-point 1 to 2" in told
    assert "6 refused;" in told
