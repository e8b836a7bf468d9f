"""A mask lies where its image lies, however the image was stored."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.prediction.masks import in_space_of, write_map
from client.readers import read_image, read_mask

AXES = st.sampled_from(list(permutations(range(3))))
SIGNS = st.sampled_from(list(product((1, -1), repeat=3)))
MM = st.tuples(*[st.floats(0.3, 8.0)] * 3)
SHAPE = st.tuples(*[st.integers(1, 5)] * 3)


def affine_of(
    axes: tuple[int, ...], signs: tuple[int, ...], mm: tuple[float, ...], tilt: float
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * np.asarray(signs) * np.asarray(mm)
    cosine, sine = np.cos(tilt), np.sin(tilt)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (11.0, -7.0, 3.5)
    return affine


@settings(max_examples=60)
@given(axes=AXES, signs=SIGNS, mm=MM, shape=SHAPE, tilt=st.floats(-0.5, 0.5), last=st.booleans())
def test_what_the_reader_turned_is_turned_back(
    axes: tuple[int, ...],
    signs: tuple[int, ...],
    mm: tuple[float, ...],
    shape: tuple[int, ...],
    tilt: float,
    last: bool,
) -> None:
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    stored = values[..., None] if last else values
    image = nib.Nifti1Image(stored, affine_of(axes, signs, mm, tilt))
    turned = np.asarray(nib.as_closest_canonical(nib.funcs.squeeze_image(image)).dataobj)
    mask = in_space_of(image, turned)
    assert mask.shape == image.shape
    np.testing.assert_array_equal(mask.affine, image.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), stored)


def test_a_mask_of_a_file_is_read_on_the_images_grid(tmp_path: Path) -> None:
    affine = affine_of((2, 0, 1), (-1, 1, -1), (0.7, 0.8, 5.0), 0.2)
    values = np.random.default_rng(0).integers(-90, 90, size=(4, 5, 3), dtype=np.int16)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(3.0, 1.0)
    nib.save(image, tmp_path / "scan.nii.gz")
    picture = read_image(tmp_path / "scan.nii.gz", 1)
    labels = (picture.array_CS[0] > 0).astype(np.uint8) * 4
    write_map(tmp_path / "scan.nii.gz", picture, labels, tmp_path / "deep" / "mask")
    mask = read_mask(tmp_path / "deep" / "mask.nii.gz")
    np.testing.assert_array_equal(mask.array_CS[0], labels)
    assert picture.affine is not None
    assert mask.affine is not None
    np.testing.assert_allclose(mask.affine, picture.affine, atol=1e-5)
    assert mask.spacing_mm == picture.spacing_mm
    assert nib.load(tmp_path / "deep" / "mask.nii.gz").get_data_dtype() == np.uint8


@pytest.mark.parametrize("largest", [3, 700])
def test_a_mask_of_a_picture_has_its_width_and_height(tmp_path: Path, largest: int) -> None:
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "eye.png")
    labels = np.zeros((4, 3), np.min_scalar_type(largest))
    labels[1, 2] = largest
    picture = read_image(tmp_path / "eye.png", 1)
    mask = write_map(tmp_path / "eye.png", picture, labels, tmp_path / "mask")
    np.testing.assert_array_equal(read_mask(mask).array_CS[0], labels)


def test_what_an_image_says_of_its_patient_is_not_in_its_mask() -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane 19600102"))
    for name in ("descrip", "aux_file", "db_name", "data_type", "intent_name"):
        image.header[name] = b"Doe"
    mask = in_space_of(image, np.zeros((2, 2, 2), np.uint8))
    assert not mask.header.extensions
    assert b"Doe" not in mask.header.binaryblock
    assert len(image.header.extensions) == 1
