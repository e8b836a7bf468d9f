import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from common.tasks.registry import Sums, build_task
from common.tasks.segmentation import (
    SegmentationConfig,
    measure,
    patient_sums,
    score,
    segmentation_metrics,
)

ONE = ["lesion"]
TWO = ["core", "edema"]


def probabilities_of(labels: NDArray[np.int64], classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(labels), classes).movedim(-1, 0).float()


def record(
    predicted: object, true: object, classes: int = 2, spacing: Sequence[float] = ()
) -> Sums:
    p, t = np.asarray(predicted, dtype=np.int64), np.asarray(true, dtype=np.int64)
    target = torch.from_numpy(t)[None]
    return measure(probabilities_of(p, classes), target, spacing or [1.0] * t.ndim)


def added(rows: Sequence[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in rows], axis=0) for key in rows[0]}


def naive_hd95_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    edge_a, edge_b = a & ~binary_erosion(a), b & ~binary_erosion(b)
    to_b = distance_transform_edt(~edge_b, sampling=spacing)[edge_a]
    to_a = distance_transform_edt(~edge_a, sampling=spacing)[edge_b]
    return float(max(np.percentile(to_b, 95), np.percentile(to_a, 95)))


def labels(count: int, largest: int) -> st.SearchStrategy[NDArray[np.int64]]:
    return hnp.arrays(np.int64, (count, 5, 4), elements=st.integers(0, largest))


def test_dice_of_equal_masks_is_one() -> None:
    mask = [[0, 1, 1], [2, 2, 0]]
    values = score(patient_sums([record(mask, mask, 3)]), TWO)
    assert values == {"dice": 1.0, "dice_core": 1.0, "dice_edema": 1.0, "hd95_mm": 0.0}


def test_dice_of_disjoint_masks_is_zero() -> None:
    values = score(patient_sums([record([[1, 1, 0, 0]], [[0, 0, 1, 1]])]), ONE)
    assert values["dice"] == 0.0


def test_dice_by_hand() -> None:
    # Three voxels found, two there, two of them the same: 2 * 2 / (3 + 2).
    values = score(patient_sums([record([[1, 1, 1, 0]], [[1, 1, 0, 0]])]), ONE)
    assert values["dice"] == pytest.approx(0.8)


def test_nothing_there_and_nothing_found_is_wholly_right() -> None:
    values = score(patient_sums([record([[0, 0]], [[0, 0]])]), ONE)
    assert values["dice"] == 1.0
    assert math.isnan(values["hd95_mm"])


def test_false_finding_in_a_healthy_patient_is_wholly_wrong() -> None:
    values = score(patient_sums([record([[0, 1]], [[0, 0]])]), ONE)
    assert values["dice"] == 0.0
    assert math.isnan(values["hd95_mm"])


def test_patient_counts_voxels_of_all_images_together() -> None:
    # A slice without the lesion must not lift a patient's Dice to (1 + 0.5) / 2.
    slices = [record([[0, 0, 0]], [[0, 0, 0]]), record([[1, 0, 0]], [[1, 1, 1]])]
    assert score(patient_sums(slices), ONE)["dice"] == pytest.approx(0.5)


def test_patients_count_equally_whatever_their_size() -> None:
    large = patient_sums([record(np.ones((9, 9)), np.ones((9, 9)))])
    small = patient_sums([record([[1, 0]], [[0, 1]])])
    assert score(added([large, small]), ONE)["dice"] == pytest.approx(0.5)


def test_dice_is_the_mean_over_classes() -> None:
    values = score(patient_sums([record([[1, 1, 0, 2]], [[1, 1, 2, 0]], 3)]), TWO)
    assert (values["dice_core"], values["dice_edema"], values["dice"]) == (1.0, 0.0, 0.5)


def test_no_patients_have_no_metrics() -> None:
    nobody = {key: 0 * value for key, value in patient_sums([record([[1]], [[1]])]).items()}
    assert all(math.isnan(value) for value in score(nobody, ONE).values())


def test_patient_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="without images"):
        patient_sums([])


def test_surface_distance_of_two_voxels_is_in_millimetres() -> None:
    predicted, true = np.zeros((10, 12)), np.zeros((10, 12))
    predicted[2, 3] = true[6, 6] = 1
    distance = record(predicted, true, spacing=[2.0, 0.5])["hd95_mm"]
    assert distance == pytest.approx([math.hypot(4 * 2.0, 3 * 0.5)])


def test_surface_distance_of_shifted_boxes_at_the_border() -> None:
    predicted, true = np.zeros((8, 8, 6)), np.zeros((8, 8, 6))
    predicted[:3, :, :] = true[:5, :, :] = 1
    # Along the first axis alone: two voxels of 1.5 mm.
    distance = record(predicted, true, spacing=[1.5, 1.0, 3.0])["hd95_mm"]
    assert distance == pytest.approx([3.0])


@settings(max_examples=50, deadline=None)
@given(masks=labels(2, 1), spacing=st.tuples(*[st.floats(0.2, 5.0)] * 2))
def test_surface_distance_equals_the_naive_way(
    masks: NDArray[np.int64], spacing: tuple[float, float]
) -> None:
    predicted, true = masks
    distance = float(record(predicted, true, spacing=spacing)["hd95_mm"][0])
    if predicted.any() and true.any():
        naive = naive_hd95_mm(predicted > 0, true > 0, spacing)
        assert distance == pytest.approx(naive, rel=1e-5)
    else:
        assert math.isnan(distance)


def test_surface_distance_averages_over_pairs_that_have_one() -> None:
    near = patient_sums([record([[1, 0, 0]], [[0, 1, 0]])])
    far = patient_sums([record([[1, 0, 0, 0]], [[0, 0, 0, 1]])])
    missed = patient_sums([record([[0, 0]], [[0, 1]])])
    assert score(added([near, far, missed]), ONE)["hd95_mm"] == pytest.approx(2.0)


@settings(max_examples=40, deadline=None)
@given(
    predicted=labels(6, 2),
    true=labels(6, 2),
    owner=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_score_of_added_sums_equals_the_naive_way(
    predicted: NDArray[np.int64], true: NDArray[np.int64], owner: list[int]
) -> None:
    patients = [[i for i in range(6) if owner[i] == who] for who in sorted(set(owner))]
    rows = [patient_sums([record(predicted[i], true[i], 3) for i in mine]) for mine in patients]
    values = score(added(rows), TWO)
    naive = np.array([[_naive_dice(predicted[m], true[m], k) for m in patients] for k in (1, 2)])
    assert values["dice_core"] == pytest.approx(naive[0].mean())
    assert values["dice_edema"] == pytest.approx(naive[1].mean())
    assert values["dice"] == pytest.approx(naive.mean())


def _naive_dice(predicted: NDArray[np.int64], true: NDArray[np.int64], label: int) -> float:
    found, there = set(np.flatnonzero(predicted == label)), set(np.flatnonzero(true == label))
    return 2 * len(found & there) / (len(found) + len(there)) if found or there else 1.0


def test_counting_a_patient_twice_is_weighting_its_row_by_two() -> None:
    rows = [patient_sums([record([[1, 1, 0]], [[1, 0, 0]])]), patient_sums([record([[1]], [[1]])])]
    weighted = {key: 2 * rows[0][key] + rows[1][key] for key in rows[0]}
    assert score(weighted, ONE) == score(added([rows[0], rows[0], rows[1]]), ONE)


@pytest.mark.parametrize(
    ("target", "spacing"),
    [((1, 4, 5), [1.0, 1.0]), ((4, 4), [1.0, 1.0]), ((1, 4, 4), [1.0])],
)
def test_shapes_that_do_not_fit_are_named(target: tuple[int, ...], spacing: list[float]) -> None:
    with pytest.raises(ValueError, match=r"do not go with a target.*give the target as"):
        measure(torch.rand(2, 4, 4), torch.zeros(target, dtype=torch.int64), spacing)


def test_diverged_model_is_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        measure(torch.full((2, 4, 4), math.nan), torch.zeros(1, 4, 4, dtype=torch.int64), [1, 1])


def test_loss_leaves_the_background_out_of_dice() -> None:
    task = build_task(SegmentationConfig(name="segmentation", classes=ONE, label_values=[1]))
    target = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    target[..., :2] = 1
    uniform = torch.zeros(1, 2, 8, 8)
    # Entropy log 2; Dice of the lesion alone, 2 * 8 / (32 + 16), with p = 1/2 everywhere.
    expected = math.log(2) + 1 - 2 * 8 / (32 + 16)
    assert float(task.loss(uniform, target)) == pytest.approx(expected, abs=1e-5)


def test_metrics_name_every_class() -> None:
    assert list(segmentation_metrics(TWO)) == ["dice", "dice_core", "dice_edema", "hd95_mm"]


@pytest.mark.parametrize(
    ("settings_of", "message"),
    [
        ({"classes": []}, "nothing to segment"),
        ({"label_values": [1, 1]}, r"label_values=\[1, 1\] does not give each"),
        ({"label_values": [1]}, r"label_values=\[1\] does not give each"),
        ({"label_values": [0, 1]}, r"label_values\[0\]=0 is not allowed"),
        ({"out_channels": 2}, r"out_channels=2 does not fit 2 classes.*give 3"),
        ({"headline": "dice_spleen"}, r"headline='dice_spleen' is not known.*dice_edema"),
    ],
)
def test_impossible_settings_name_the_way_out(settings_of: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"classes": TWO, "label_values": [1, 2], "out_channels": 3}
    with pytest.raises(ValueError, match=message):
        SegmentationConfig(name="segmentation", **{**good, **settings_of})  # type: ignore[arg-type]
