import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.readers import BadFileError, read_image, read_mask

AFFINE = np.array([[2.0, 0, 0, -30], [0, 3.0, 0, -40], [0, 0, 5.0, -50], [0, 0, 0, 1]])


def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)


def stored_otherwise(order: tuple[int, ...], signs: tuple[int, ...]) -> nib.Nifti1Image:
    """The same volume in the same place, stored with its axes in another order and direction."""
    image = nib.Nifti1Image(volume(), AFFINE)
    return image.as_reoriented(np.array(list(zip(order, signs, strict=True)), dtype=float))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_orientation_reads_as_the_same_ras_volume(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    for number, signs in enumerate(product((1, -1), repeat=3)):
        path = tmp_path / f"{number}.nii"
        nib.save(stored_otherwise(order, signs), path)
        picture = read_image(path, 1)
        np.testing.assert_array_equal(picture.array_CS[0], volume())
        np.testing.assert_allclose(picture.affine, AFFINE, atol=1e-5)
        assert picture.spacing_mm == pytest.approx((2.0, 3.0, 5.0))


def test_a_volume_of_more_voxels_than_are_decoded_is_refused(tmp_path: Path) -> None:
    """A file of 1.1 MB may really hold them: deflate makes at most 1032 bytes of one."""
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE)
    content = bytearray(image.to_bytes())
    content[40:48] = np.array([3, 1024, 1024, 1024], np.int16).tobytes()
    noise = np.random.default_rng(0).bytes(1_100_000)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content) + noise))
    with pytest.raises(BadFileError, match=f"says that it has {2**30} pixels"):
        read_image(tmp_path / "a.nii.gz", 1)


def test_a_grey_volume_fills_three_channels_equally(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii.gz")
    array_CS = read_image(tmp_path / "a.nii.gz", 3).array_CS
    assert array_CS.shape == (3, 4, 5, 6)
    assert array_CS.dtype == np.float32
    assert (array_CS == array_CS[:1]).all()


@pytest.mark.parametrize(("unit", "mm"), [("mm", 2.0), ("micron", 0.002), ("meter", 2000.0)])
def test_spacing_is_in_mm_whatever_the_file_counts_in(tmp_path: Path, unit: str, mm: float) -> None:
    image = nib.Nifti1Image(volume(), AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii", 1).spacing_mm[0] == pytest.approx(mm)


def test_a_series_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(volume()[..., None], AFFINE), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii", 1).array_CS[0], volume())


def test_the_scale_of_the_header_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii").get_fdata()
    np.testing.assert_allclose(read_image(tmp_path / "a.nii", 1).array_CS[0], stored)


def test_labels_stored_as_decimals_become_whole_numbers(tmp_path: Path) -> None:
    labels = np.zeros((2, 2, 2))
    labels[0], labels[1, 0] = 1.0000001, 2.0
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "m.nii")
    mask = read_mask(tmp_path / "m.nii").array_CS
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask[0], np.rint(labels))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_a_mask_of_probabilities_is_bad(tmp_path: Path, value: float) -> None:
    labels = np.zeros((2, 2, 2))
    labels[0, 0, 0] = value
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "m.nii")
    with pytest.raises(BadFileError, match=f"holds the value {value:g} in 1 places"):
        read_mask(tmp_path / "m.nii")


def test_colour_voxels_are_bad(tmp_path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), kind), AFFINE), tmp_path / "a.nii")
    with pytest.raises(BadFileError, match="one real number a voxel"):
        read_image(tmp_path / "a.nii", 1)


def test_a_voxel_without_size_is_bad(tmp_path: Path) -> None:
    flat = AFFINE.copy()
    flat[2, 2] = 0
    image = nib.Nifti1Image(volume(), None)
    image.header.set_sform(flat, code=1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(BadFileError, match="voxel size"):
        read_image(tmp_path / "a.nii", 1)


def test_real_volumes_read_as_ras_with_their_masks(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("spinalcord_gm/*/*_T2starw.nii.gz"))[:3]:
        picture = read_image(path, 1)
        mask = read_mask(path.with_name(path.name.replace(".nii", "_gmseg-manual.nii")))
        assert nib.aff2axcodes(picture.affine) == ("R", "A", "S")
        assert mask.array_CS.shape == picture.array_CS.shape
        assert set(np.unique(mask.array_CS)) == {0, 1}


def test_a_header_that_promises_more_than_the_file_can_hold_is_told(tmp_path: Path) -> None:
    """Before a byte of it is allocated: 2 TB here."""
    for name in ("a.nii", "a.nii.gz"):
        image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE)
        nib.save(image, tmp_path / name)
        opener = gzip.open if name.endswith("gz") else open
        with opener(tmp_path / name, "rb") as file:
            content = bytearray(file.read())
        content[42:48] = np.array([10_000, 10_000, 10_000], "<i2").tobytes()
        with opener(tmp_path / name, "wb") as file:
            file.write(content)
        with pytest.raises(BadFileError, match=r"it promises 2e\+12 bytes"):
            read_image(tmp_path / name, 1)


def test_a_label_that_is_too_large_to_be_one_is_bad(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 1e30), AFFINE), tmp_path / "m.nii")
    with pytest.raises(BadFileError, match="labels are whole numbers"):
        read_mask(tmp_path / "m.nii")
