import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image
from pydicom import dcmread

from client.cli import app
from client.manifest import Row, read_manifest
from client.readers import read_image, read_mask
from tests.dicoms import square_mm, stored_volume, write_contours, write_segmentation, write_series


def volume(path: Path, labels: tuple[int, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 4, 3), np.int16)
    if labels:
        array[0, 0, : len(labels)] = labels
    else:
        array[:] = np.arange(48).reshape(4, 4, 3)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), path)


def manifest_of(root: Path, **mapping: object) -> list[Row]:
    """What the command writes, read back."""
    words = ["manifest", "--root", str(root), "--output", str(root.parent / "m.csv"), "--overwrite"]
    if mapping:
        (root.parent / "map.yaml").write_text(yaml.safe_dump(mapping))
        words += ["--mapping", str(root.parent / "map.yaml")]
    app(words, standalone_mode=False)
    return read_manifest(root.parent / "m.csv")


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Two subjects, the first with two sessions; lesions and tissues in derivatives."""
    root = tmp_path / "bids"
    for name, sessions in {"sub-01": ["ses-a", "ses-b"], "sub-02": ["ses-a"]}.items():
        for session in sessions:
            start = f"{name}_{session}"
            for suffix in ("T1w", "FLAIR"):
                volume(root / name / session / "anat" / f"{start}_{suffix}.nii.gz")
            derived = root / "derivatives" / "manual" / name / session / "anat"
            volume(derived / f"{start}_T1w_label-lesion_mask.nii.gz".replace("_T1w", ""), (255,))
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t40\tF\nsub-02\tn/a\tM\n"
    )
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\nses-b\t41\n")
    sidecar = {"Manufacturer": "ACME", "ManufacturersModelName": "X", "MagneticFieldStrength": 3}
    (root / "sub-02/ses-a/anat/sub-02_ses-a_T1w.json").write_text(json.dumps(sidecar))
    return root


def test_bids_becomes_rows_with_sessions_and_derivatives(bids: Path) -> None:
    rows = manifest_of(bids, sequences={"t1w": "t1"})
    assert [row.image.name for row in rows] == [
        "sub-01_ses-a_T1w.nii.gz",
        "sub-01_ses-b_T1w.nii.gz",
        "sub-02_ses-a_T1w.nii.gz",
    ]
    for row in rows:
        assert row.mask is not None
        assert row.mask.name == row.image.name.replace("T1w", "label-lesion_mask")
        assert row.covariates["sequence"] == "t1"
    assert [row.patient for row in rows] == ["sub-01", "sub-01", "sub-02"]
    assert [row.covariates.get("age") for row in rows] == ["40", "41", None]
    assert rows[2].covariates["scanner"] == "ACME X"
    assert rows[2].covariates["field_t"] == "3"


def test_all_sequences_are_listed_without_a_mapping(bids: Path) -> None:
    assert len(manifest_of(bids)) == 6
    with pytest.raises(ValueError, match="its sequences are: 'FLAIR', 'T1w'"):
        manifest_of(bids, sequences={"bold": "t1"})


def test_several_masks_of_an_image_want_a_pattern(bids: Path) -> None:
    second = bids / "derivatives/manual/sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz"
    volume(second, (1,))
    volume(second.with_name(second.name.replace("sub-02", "sub-01")), (1,))
    with pytest.raises(ValueError, match="4 of 6 images have several masks") as told:
        manifest_of(bids)
    assert all(f"sub-0{number}_ses-a_FLAIR.nii.gz: " in str(told.value) for number in (1, 2))
    assert "--mapping" in str(told.value)
    masks = [row.mask.name for row in manifest_of(bids, mask="*lesion*") if row.mask]
    assert len(masks) == 6
    assert all("lesion" in name for name in masks)


def test_labels_of_a_site_get_the_studys_values(bids: Path) -> None:
    rows = manifest_of(bids, labels={255: 1})
    for row in rows:
        assert row.mask is not None
        assert row.mask.parent.name == "masks-of-study"
        mask, image = read_mask(row.mask), read_image(row.image, 1)
        assert set(np.unique(mask.array_CS)) == {0, 1}
        np.testing.assert_array_equal(mask.affine, image.affine)
    assert all(
        "derivatives" in row.mask.parts for row in manifest_of(bids, labels={255: 255}) if row.mask
    )
    with pytest.raises(ValueError, match="has the label 255, which the mapping does not list"):
        manifest_of(bids, labels={1: 1})


def test_columns_of_a_table_do_not_take_the_place_of_the_manifests(bids: Path) -> None:
    before = manifest_of(bids)
    (bids / "participants.tsv").write_text(
        "participant_id\timage\tmask\tlabel\tpatient\tsplit\timage_t1\tage\n"
        "sub-01\t../secret.nii\t../x.nii\tsick\tyes\ttest\t../y.nii\t40\n"
    )
    after = manifest_of(bids)
    for old, new in zip(before, after, strict=True):
        assert (new.image, new.mask, new.patient) == (old.image, old.mask, old.patient)
        assert (new.label, new.split, new.sequences) == (None, None, {})
    ages = [row.covariates.get("age") for row in after]
    assert ages == ["40", "40", "41", "41", None, None]


def test_a_second_manifest_beside_the_first_leaves_its_masks_as_they_are(bids: Path) -> None:
    one = manifest_of(bids, sequences={"t1w": "t1"}, labels={255: 1})
    masks = {row.mask: row.mask.read_bytes() for row in one if row.mask}
    manifest_of(bids, labels={255: 2})
    assert masks
    assert all(mask.read_bytes() == content for mask, content in masks.items())
    # The same masks again are the same files.
    assert {row.mask for row in manifest_of(bids, labels={255: 1})} == set(masks)


def test_what_is_written_is_for_its_owner_alone(bids: Path) -> None:
    for row in manifest_of(bids, labels={255: 1}):
        assert row.mask is not None
        assert row.mask.stat().st_mode & 0o077 == 0
        assert row.mask.parent.stat().st_mode & 0o077 == 0
    assert (bids.parent / "m.csv").stat().st_mode & 0o077 == 0


def test_a_data_set_within_a_folder_called_derivatives_has_its_images(bids: Path) -> None:
    bids.rename(bids.parent / "derivatives")
    assert len(manifest_of(bids.parent / "derivatives")) == 6


def test_a_folder_of_labels_alone_has_no_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_contours(tmp_path / "in" / "rt.dcm", {1: []})
    with pytest.raises(ValueError, match="holds no images"):
        manifest_of(tmp_path / "in")


def test_several_segmentations_of_a_series_want_a_pattern(tmp_path: Path) -> None:
    root = tmp_path / "in"
    uid = str(dcmread(write_series(root / "ct")[0]).SeriesInstanceUID)
    for name in ("heart.dcm", "gtv.dcm"):
        (root / "m").mkdir(exist_ok=True)
        write_contours(root / "m" / name, {1: []}, series=uid)
    with pytest.raises(ValueError, match=r"gtv.dcm, heart.dcm\); say which"):
        manifest_of(root)
    (row,) = manifest_of(root, mask="*GTV*")
    assert row.mask is not None
    assert row.mask.name == "gtv.dcm"


def test_only_dicom_in_a_sub_folder_takes_a_series_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    write_series(root / "ct")
    (root / "ct" / "notes").mkdir()
    assert len(manifest_of(root)) == 1
    write_series(root / "ct" / "scout", stored_volume(2))
    assert len(manifest_of(root)) == 5
    assert "1 folders hold several DICOM series" in capsys.readouterr().out


def test_a_decathlon_list_has_names_of_labels_and_sides(tmp_path: Path) -> None:
    root = tmp_path / "Task"
    for name in "abc":
        volume(root / f"imagesTr/{name}.nii.gz")
        volume(root / f"labelsTr/{name}.nii.gz", (2, 1))
    entry = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz", "fold": 1}
        for name in "abc"
    ]
    content = {
        "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "training": entry[:2],
        "validation": entry[2:],
        "test": ["./imagesTr/a.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    rows = manifest_of(root, labels={"tumour": 1, "liver": 0})
    assert manifest_of(root / "dataset.json", labels={"tumour": 1, "liver": 0})
    assert [(row.patient, row.split) for row in rows] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "test"),
    ]
    assert rows[0].covariates["fold"] == "1"
    for row in rows:
        assert row.mask is not None
        assert read_mask(row.mask).array_CS[0, 0, 0].tolist() == [1, 0, 0]


def test_dicom_gets_its_sequence_and_the_names_of_its_regions(tmp_path: Path) -> None:
    root = tmp_path / "in"
    series = write_series(root / "t1", SeriesDescription="t1_MPRAGE sag")
    write_series(root / "t2", SeriesDescription="t2_tse")
    uid = str(dcmread(series[0]).SeriesInstanceUID)
    outlines = {4: [square_mm((0, 0), (3, 3), 1)], 7: [square_mm((3, 0), (6, 5), 2)]}
    contours = write_contours(root / "rt.dcm", outlines, series=uid)
    found = dcmread(contours)
    found.StructureSetROISequence[0].ROIName = "GTV"
    found.save_as(contours)
    rows = manifest_of(root, sequences={"*mprage*": "t1"}, labels={"gtv": 2, "region 7": 5})
    (row,) = rows
    assert (row.image, row.patient) == ((root / "t1").resolve(), "MRN-4711")
    assert row.covariates["sequence"] == "t1"
    assert row.mask is not None
    values, counts = np.unique(read_mask(row.mask).array_CS, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 96, 2: 9, 5: 15}


def test_the_names_of_segments_are_mapped_too(tmp_path: Path) -> None:
    root = tmp_path / "in"
    series = write_series(root / "ct")
    mask = np.zeros(stored_volume().shape, np.uint8)
    mask[1, :2, :3] = 1
    write_segmentation(root / "seg.dcm", series, {1: mask})
    (row,) = manifest_of(root, labels={"Segment 1": 3})
    assert row.mask is not None
    assert set(np.unique(read_mask(row.mask).array_CS)) == {0, 3}


def test_series_in_images_have_the_masks_of_their_names(tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_series(root / "images" / "p1")
    volume(root / "masks" / "p1.nii.gz", (1,))
    (row,) = manifest_of(root)
    assert (row.image.name, row.patient) == ("p1", "p1")
    assert row.mask is not None
    assert row.mask.name == "p1.nii.gz"


def test_classes_are_renamed_and_an_unknown_one_is_told(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("gesund", "krank"):
        (root / name).mkdir(parents=True)
        Image.new("L", (4, 4), 3).save(root / name / f"{name}.png")
    rows = manifest_of(root, classes={"gesund": "well", "krank": "sick"})
    assert sorted(str(row.label) for row in rows) == ["sick", "well"]
    with pytest.raises(ValueError, match="'krank' is not in the mapping"):
        manifest_of(root, classes={"gesund": "well"})


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(bids: Path) -> None:
    (bids / "participants.tsv").write_bytes(b"\xff")
    (bids / "README").write_text("a file")
    words = ["manifest", "--root", str(bids), "--output", str(bids / "README" / "m.csv")]
    with pytest.raises(NotADirectoryError, match="README"):
        app(words, standalone_mode=False)


def test_a_manifest_that_is_there_stays(bids: Path) -> None:
    (bids / "manifest.csv").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        app(["manifest", "--root", str(bids)], standalone_mode=False)
    assert (bids / "manifest.csv").read_text() == "mine"
