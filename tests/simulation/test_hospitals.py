"""Laws of the virtual hospitals' folders."""

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.hospitals import MARKER, Hospital, overlay_site, write_hospital
from simulation.phantom import CaseMix
from simulation.scanner import ScannerConfig

T2 = ScannerConfig(
    name="t2",
    field_t=1.5,
    sequence="spin_echo",
    te_ms=100.0,
    tr_ms=4000.0,
    in_plane_mm=3.0,
    orientation="LPS",
)
T1 = dataclasses.replace(T2, name="t1", te_ms=14.0, tr_ms=500.0)


@dataclass(frozen=True)
class Row:
    image: Path
    mask: Path | None
    patient: str
    split: str | None = "train"
    label: str | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)


def hospital(**changes: object) -> Hospital:
    return Hospital(**{"name": "ward", "scanner": T2, "patients": 3, **changes})  # type: ignore[arg-type]


def read(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_equal_seeds_give_equal_bytes_and_others_other_images(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_hospital(tmp_path / folder, hospital(), seed)
    first, again, other = (contents(tmp_path / folder) for folder in "abc")
    assert first == again
    assert all(first[name] != other[name] for name in first if name.startswith("images/"))


def test_manifest_names_every_file_relative_to_itself(tmp_path: Path) -> None:
    manifest = write_hospital(tmp_path / "site", hospital(), 0)
    rows = read(manifest)
    assert list(rows[0]) == ["image", "mask", "patient", "split", "age", "sequence", "field_t"]
    assert [row["split"] for row in rows] == ["train", "train", "test"]
    assert {row["sequence"] for row in rows} == {"spin_echo"}
    listed = {row[kind] for row in rows for kind in ("image", "mask")}
    assert listed | {"manifest.csv", MARKER} == set(contents(tmp_path / "site"))


def test_files_hold_one_grid_in_mm_and_the_scanners_orientation(tmp_path: Path) -> None:
    manifest = write_hospital(tmp_path / "site", hospital(), 0)
    for row in read(manifest):
        image, mask = (nib.load(manifest.parent / row[kind]) for kind in ("image", "mask"))
        assert image.shape == mask.shape == (72, 72, 6)
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), (3.0, 3.0, 5.0))
        np.testing.assert_allclose(image.header.get_qform(), image.header.get_sform(), atol=1e-4)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.get_data_dtype() == np.float32
        assert set(np.unique(mask.dataobj)) <= {0, 1}


def test_patients_are_of_one_hospital_only(tmp_path: Path) -> None:
    ids = [
        row["patient"]
        for name in ("north", "south")
        for row in read(write_hospital(tmp_path / name, hospital(name=name), 0))
    ]
    assert len(set(ids)) == 6


def test_another_scanner_sees_the_same_patients(tmp_path: Path) -> None:
    first = write_hospital(tmp_path / "t2", hospital(), 0).parent
    second = write_hospital(tmp_path / "t1", hospital(scanner=T1), 0).parent
    for name, content in contents(first).items():
        if name.startswith("masks/"):
            assert (second / name).read_bytes() == content
        if name.startswith("images/"):
            assert (second / name).read_bytes() != content


def test_case_mix_decides_how_much_lesion_there_is(tmp_path: Path) -> None:
    def lesion_voxels(name: str, mean: float) -> int:
        site = hospital(name=name, case_mix=CaseMix(lesions_mean=mean))
        manifest = write_hospital(tmp_path / name, site, 0)
        masks = [nib.load(manifest.parent / row["mask"]) for row in read(manifest)]
        return int(sum(np.asarray(mask.dataobj).sum() for mask in masks))

    assert lesion_voxels("none", 0.0) == 0
    assert 0 < lesion_voxels("few", 3.0) < lesion_voxels("many", 25.0)


def test_a_finished_folder_is_not_made_again(tmp_path: Path) -> None:
    manifest = write_hospital(tmp_path / "site", hospital(), 0)
    image = tmp_path / "site" / read(manifest)[0]["image"]
    image.write_bytes(b"touched")
    assert write_hospital(tmp_path / "site", hospital(), 0) == manifest
    assert image.read_bytes() == b"touched"


def test_a_half_made_folder_is_made_again(tmp_path: Path) -> None:
    whole = contents(write_hospital(tmp_path / "whole", hospital(), 0).parent)
    left_over = tmp_path / ".site.partial" / "images"
    left_over.mkdir(parents=True)
    (left_over / "ward-0007.nii").write_bytes(b"half")
    assert contents(write_hospital(tmp_path / "site", hospital(), 0).parent) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "whole"]


def test_a_folder_made_otherwise_is_refused(tmp_path: Path) -> None:
    write_hospital(tmp_path / "site", hospital(), 0)
    for changed, seed in ((hospital(), 1), (hospital(patients=4), 0)):
        with pytest.raises(ValueError, match="other settings"):
            write_hospital(tmp_path / "site", changed, seed)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_hospital(foreign, hospital(), 0)
    assert (foreign / "thesis.txt").read_text() == "mine"


@given(patients=st.integers(1, 200), held_out=st.floats(0, 1))
def test_held_out_patients_are_the_share_with_one_at_least_on_each_side(
    patients: int, held_out: float
) -> None:
    count = hospital(patients=patients, held_out=held_out).held_out_patients
    assert abs(count - held_out * patients) <= 1
    if patients >= 2 and 0 < held_out < 1:
        assert 1 <= count <= patients - 1


@pytest.mark.parametrize("wrong", [{"name": "a/b"}, {"patients": 0}, {"held_out": 1.5}])
def test_a_hospital_that_cannot_be_names_its_field(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        hospital(**wrong)


def real_rows(folder: Path) -> list[Row]:
    """Two small volumes with a header of their own, as a real data set would have."""
    rows = []
    for index in range(2):
        rng = np.random.default_rng(index)
        affine = np.diag([-1.0, 1.0, 1.5, 1.0])
        image, mask = folder / f"case{index}.nii.gz", folder / f"mask{index}.nii.gz"
        nib.save(nib.Nifti1Image((rng.random((12, 15, 9)) * 900).astype(np.int16), affine), image)
        nib.save(nib.Nifti1Image(np.ones((12, 15, 9), np.uint8), affine), mask)
        rows.append(Row(image, mask, f"p{index}", covariates={"age": str(40 + index)}))
    return rows


def test_overlay_keeps_grid_masks_and_patients_and_changes_intensities(tmp_path: Path) -> None:
    rows = real_rows(tmp_path)
    manifest = overlay_site(rows, T2, tmp_path / "site", 0)
    new = read(manifest)
    assert [row["patient"] for row in new] == ["p0", "p1"]
    assert [row["age"] for row in new] == ["40", "41"]
    assert {(row["sequence"], row["field_t"]) for row in new} == {("spin_echo", "1.5")}
    for old, row in zip(rows, new, strict=True):
        assert Path(row["mask"]) == old.mask
        before, after = nib.load(old.image), nib.load(manifest.parent / row["image"])
        assert after.shape == before.shape
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.get_data_dtype() == np.float32
        assert abs(np.corrcoef(before.get_fdata().ravel(), after.get_fdata().ravel())[0, 1]) < 0.99


def test_overlay_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = real_rows(tmp_path)
    seen = []
    for name, order in (("there", rows), ("back", rows[::-1])):
        manifest = overlay_site(order, T2, tmp_path / name, 0)
        seen.append(
            {
                row["patient"]: (manifest.parent / row["image"]).read_bytes()
                for row in read(manifest)
            }
        )
    assert seen[0] == seen[1]


def test_overlay_is_made_once_and_notices_other_sources(tmp_path: Path) -> None:
    rows = real_rows(tmp_path)
    manifest = overlay_site(rows, T2, tmp_path / "site", 0)
    assert overlay_site(rows, T2, tmp_path / "site", 0) == manifest
    with pytest.raises(ValueError, match="other settings"):
        overlay_site(rows[:1], T2, tmp_path / "site", 0)


def test_overlay_refuses_rows_with_unlike_columns(tmp_path: Path) -> None:
    first, second = real_rows(tmp_path)
    with pytest.raises(ValueError, match="same columns"):
        overlay_site([first, dataclasses.replace(second, mask=None)], T2, tmp_path / "site", 0)
    with pytest.raises(ValueError, match="no rows"):
        overlay_site([], T2, tmp_path / "site", 0)


def test_overlay_of_real_hippocampi_keeps_their_masks_true(
    tmp_path: Path, shared_data: Path
) -> None:
    images = sorted((shared_data / "hippocampus_msd" / "images").glob("*.nii.gz"))[:3]
    masks = [shared_data / "hippocampus_msd" / "labels" / image.name for image in images]
    rows = [
        Row(image, mask, image.name, split=None) for image, mask in zip(images, masks, strict=True)
    ]
    manifest = overlay_site(rows, T1, tmp_path / "site", 0)
    for row in read(manifest):
        image, mask = nib.load(manifest.parent / row["image"]), nib.load(row["mask"])
        assert image.shape == mask.shape
        np.testing.assert_allclose(image.affine, mask.affine)
        assert np.isfinite(image.get_fdata()).all()


def test_what_is_new_at_the_second_visit_is_the_mask_and_the_first_is_as_without_it(
    tmp_path: Path,
) -> None:
    many = CaseMix(lesions_mean=6.0, lesion_size_mm=14.0)
    once = hospital(patients=1, case_mix=many)
    plain = write_hospital(tmp_path / "once", once, 0)
    twice = dataclasses.replace(once, new_lesions_mean=6.0)
    manifest = write_hospital(tmp_path / "twice", twice, 0)
    (row,), (row_once,) = read(manifest), read(plain)
    assert row["image"] == row["image_baseline"]
    assert (manifest.parent / row["image"]).read_bytes() == (
        plain.parent / row_once["image"]
    ).read_bytes()
    columns = ("image_baseline", "image_followup", "mask")
    first, second, new = (nib.load(manifest.parent / row[name]) for name in columns)
    assert first.shape == second.shape == new.shape
    old = nib.load(plain.parent / row_once["mask"]).get_fdata() > 0
    is_new = new.get_fdata() > 0
    assert is_new.any()
    assert not (is_new & old).any()
    brighter = second.get_fdata() - first.get_fdata()
    # Nothing else has changed but the noise.
    assert brighter[is_new].mean() > 10 * abs(brighter[~is_new].mean())


def test_two_visits_of_several_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="both name the images"):
        hospital(sequences={"t1": T1}, new_lesions_mean=3.0)


def test_sequences_show_the_same_patient_on_one_grid(tmp_path: Path) -> None:
    fine = dataclasses.replace(T1, in_plane_mm=2.0, orientation="RAS")
    manifest = write_hospital(tmp_path / "a", hospital(patients=1, sequences={"t1": fine}), 0)
    plain = write_hospital(tmp_path / "b", hospital(patients=1), 0)
    (row,) = read(manifest)
    main, other = (nib.load(manifest.parent / row[name]) for name in ("image", "image_t1"))
    assert main.shape == other.shape
    np.testing.assert_array_equal(main.affine, other.affine)
    assert not np.array_equal(main.get_fdata(), other.get_fdata())
    assert (manifest.parent / row["image"]).read_bytes() == (
        plain.parent / read(plain)[0]["image"]
    ).read_bytes()
