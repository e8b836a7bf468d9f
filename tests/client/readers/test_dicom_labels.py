from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from client.readers import BadFileError, read_image, read_mask
from tests.dicoms import (
    ORIGIN_MM,
    SPACING_MM,
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

    same = read_image(tmp_path / "s", 1).frame_of_reference
    write_series(tmp_path / "other", change=moved, FrameOfReferenceUID=same)
    with pytest.raises(BadFileError, match="not those of its image"):
        read_mask(path, read_image(tmp_path / "other", 1))
    write_series(tmp_path / "short", stored_volume(2), FrameOfReferenceUID=same)
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


def labels_of(path: Path, outlines: dict[int, list[np.ndarray]], **words: str) -> np.ndarray:
    """On the series beside the file."""
    write_contours(path, outlines, **words)
    labels: np.ndarray = read_mask(path, read_image(path.parent / "s", 1)).array_CS[0]
    return labels


def test_contours_that_are_xor_by_name_are_read_and_points_are_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    outlines = {2: [square_mm((0, 0), (4, 5), 1), square_mm((1, 1), (3, 4), 1)]}
    labels = labels_of(tmp_path / "rt.dcm", outlines, kind="CLOSEDPLANAR_XOR")
    np.testing.assert_array_equal(labels, labels_of(tmp_path / "rt.dcm", outlines))
    assert (labels == 2).sum() == 4 * 5 - 2 * 3
    assert not labels_of(tmp_path / "rt.dcm", {3: [np.zeros((1, 3))]}, kind="POINT").any()


def test_no_region_is_lost_unsaid(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    square = square_mm((0, 0), (4, 5), 1)
    between = square_mm((2, 2), (3, 3), 1)
    between[:, 0] = np.add(between[:, 0].mean(), [0.5, 0.6, 0.6, 0.5])
    above = np.add(square, [0, 0, 1.0])
    for word, outlines, kind in [
        ("0 is the background", {0: [square]}, "CLOSED_PLANAR"),
        ("region 4 with contours that are not closed", {4: [square]}, "OPEN_PLANAR"),
        ("outlines hold no voxel", {4: [between]}, "CLOSED_PLANAR"),
        ("outlines hold no voxel", {4: [square, square]}, "CLOSED_PLANAR"),
        ("several depths within one slice", {1: [square, above]}, "CLOSED_PLANAR"),
    ]:
        with pytest.raises(BadFileError, match=word):
            labels_of(tmp_path / "rt.dcm", outlines, kind=kind)


def test_labels_in_another_frame_of_reference_are_refused(tmp_path: Path) -> None:
    series = write_series(tmp_path / "s", FrameOfReferenceUID="1.2.3")
    outlines = {1: [square_mm((0, 0), (4, 5), 1)]}
    assert labels_of(tmp_path / "rt.dcm", outlines, frame_of_reference="1.2.3").any()
    with pytest.raises(BadFileError, match="another frame of reference"):
        labels_of(tmp_path / "rt.dcm", outlines, frame_of_reference="1.2.4")
    path = write_segmentation(tmp_path / "seg.dcm", series, masks())
    write_series(tmp_path / "other", FrameOfReferenceUID="1.2.4")
    with pytest.raises(BadFileError, match="another frame of reference"):
        read_mask(path, read_image(tmp_path / "other", 1))


@given(start=st.integers(0, 3), turned=st.booleans(), flipped=st.booleans())
@settings(max_examples=16, suppress_health_check=list(HealthCheck), deadline=None)
def test_an_outline_through_voxel_centres_has_its_area_whatever_way_it_runs(
    tmp_path: Path, start: int, turned: bool, flipped: bool
) -> None:
    """And its neighbour on the other side of an edge does not overlap it."""
    half = np.array([*SPACING_MM[:2], 0]) / 2

    def flip(_: int, one: Dataset) -> None:
        if flipped:
            one.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
            one.ImagePositionPatient[:2] = [ORIGIN_MM[0] + 5 * 2.0, ORIGIN_MM[1] + 4 * 3.0]

    write_series(tmp_path / "s", change=flip)
    outlines = [square_mm((0, 1), (2, 3), 1) + half, square_mm((2, 1), (4, 3), 1) + half]
    run = [np.roll(one, start, axis=0)[:: -1 if turned else 1] for one in outlines]
    labels = labels_of(tmp_path / "rt.dcm", {1: [run[0]], 2: [run[1]]})
    assert [int((labels == number).sum()) for number in (1, 2)] == [4, 4]
    # A centre on an edge counts where the region lies to its right or in front of it.
    assert np.argwhere(labels == 1).tolist() == [[3, 1, 1], [3, 2, 1], [4, 1, 1], [4, 2, 1]]


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
