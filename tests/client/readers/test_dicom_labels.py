from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from client.readers import BadFileError, read_image, read_mask
from tests.dicoms import (
    square_mm,
    stored_volume,
    write_contours,
    write_segmentation,
    write_series,
)

SHAPE = stored_volume().shape


def masks() -> dict[int, np.ndarray]:
    """Two segments [slices, rows, columns]; the first slice has none."""
    one, two = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    one[1:3, 1:4, 1:3] = 1
    two[2:, 0, 4:] = 1
    return {1: one, 2: two}


def expected() -> np.ndarray:
    labels = sum(number * mask for number, mask in masks().items())
    return np.asarray(labels).transpose(2, 1, 0)[::-1, ::-1]


def test_a_segmentation_lies_on_the_grid_of_its_image(tmp_path: Path) -> None:
    series = write_series(tmp_path / "s")
    path = write_segmentation(tmp_path / "seg.dcm", series, masks())
    image = read_image(tmp_path / "s", 1)
    mask = read_mask(path, image)
    np.testing.assert_array_equal(mask.array_CS[0], expected())
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert mask.array_CS.dtype == np.int64
    # On a grid of its own it is where it was, less the slices without a label.
    alone = read_mask(path)
    np.testing.assert_array_equal(alone.array_CS[0], expected()[..., 1:])


def test_segments_that_overlap_are_refused(tmp_path: Path) -> None:
    series = write_series(tmp_path / "s")
    both = {1: masks()[1], 2: masks()[1]}
    path = write_segmentation(tmp_path / "seg.dcm", series, both)
    with pytest.raises(BadFileError, match="overlap"):
        read_mask(path, read_image(tmp_path / "s", 1))


def test_probabilities_are_no_labels(tmp_path: Path) -> None:
    series = write_series(tmp_path / "s")
    half = {1: masks()[1] * np.float32(0.5)}
    path = write_segmentation(tmp_path / "seg.dcm", series, half, segmentation_type="FRACTIONAL")
    with pytest.raises(BadFileError, match="probabilities"):
        read_mask(path, read_image(tmp_path / "s", 1))


def test_a_segmentation_of_another_image_is_refused(tmp_path: Path) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", write_series(tmp_path / "s"), masks())

    def moved(_: int, one: Dataset) -> None:
        one.ImagePositionPatient[0] += 0.9

    write_series(tmp_path / "other", change=moved)
    with pytest.raises(BadFileError, match="not those of its image"):
        read_mask(path, read_image(tmp_path / "other", 1))
    write_series(tmp_path / "short", stored_volume(2))
    with pytest.raises(BadFileError, match="labelled voxels outside"):
        read_mask(path, read_image(tmp_path / "short", 1))


def test_contours_are_filled_and_an_outline_within_another_is_a_hole(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    image = read_image(tmp_path / "s", 1)
    path = write_contours(
        tmp_path / "rt.dcm",
        {
            3: [square_mm((0, 0), (4, 5), 1), square_mm((1, 1), (3, 4), 1)],
            5: [square_mm((4, 0), (6, 2), 2)],
        },
    )
    expected = np.zeros(SHAPE, int)
    expected[1, 0:5, 0:4] = 3
    expected[1, 1:4, 1:3] = 0
    expected[2, 0:2, 4:6] = 5
    mask = read_mask(path, image)
    np.testing.assert_array_equal(mask.array_CS[0], expected.transpose(2, 1, 0)[::-1, ::-1])
    np.testing.assert_array_equal(mask.affine, image.affine)


def test_contours_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    image = read_image(tmp_path / "s", 1)
    inside = square_mm((0, 0), (3, 3), 1)
    leaning = inside.copy()
    leaning[1:3, 2] += 4
    bad = {
        "no grid of their own": ({1: [inside]}, None),
        "overlap": ({1: [inside], 2: [inside]}, image),
        "outside of its image": ({1: [inside + 100]}, image),
        "crosses the slices": ({1: [leaning]}, image),
    }
    for word, (outlines, of) in bad.items():
        path = write_contours(tmp_path / "rt.dcm", outlines)
        with pytest.raises(BadFileError, match=word):
            read_mask(path, of)


def test_an_image_is_no_mask_and_a_mask_is_no_image(tmp_path: Path) -> None:
    series = write_series(tmp_path / "s")
    path = write_segmentation(tmp_path / "seg.dcm", series, masks())
    with pytest.raises(BadFileError, match="labels are SEG or RTSTRUCT"):
        read_mask(series[0])
    with pytest.raises(BadFileError, match=r"holds labels \(SEG\)"):
        read_image(path, 1)


def test_real_segmentations_are_read_or_refused_with_a_reason(shared_data: Path) -> None:
    root = shared_data / "dicom" / "highdicom"
    image = read_image(root / "ct_image.dcm", 1)
    mask = read_mask(root / "seg_image_ct_binary_single_frame.dcm", image)
    assert (mask.array_CS > 0).sum() == 1832
    assert read_mask(root / "seg_image_ct_binary.dcm").array_CS.shape == (1, 16, 16, 3)
    assert read_mask(root / "seg_image_cr_binary.dcm").array_CS.sum() == 151
    reasons = {
        "seg_image_ct_binary_overlap": "overlap",
        "seg_image_ct_true_fractional": "probabilities",
        "seg_image_sm_control": "slide",
        "seg_image_sm_control_labelmap": "slide",
        "seg_image_sm_dots_tiled_full": "slide",
    }
    for name, word in reasons.items():
        with pytest.raises(BadFileError, match=word):
            read_mask(root / f"{name}.dcm")
