import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tasks.ranking import (
    CALIBRATION_BINS,
    confidence_bin,
    expected_calibration_error,
)
from common.tasks.reliability import LEAST_PATIENTS, reliability
from common.tasks.task import Sums

IMAGES = st.lists(st.tuples(st.floats(0.5, 1.0), st.booleans()), min_size=1, max_size=3)


def row(images: list[tuple[float, bool]]) -> Sums:
    calibration = np.zeros((3, CALIBRATION_BINS))
    for confidence, right in images:
        calibration[:, confidence_bin(confidence)] += 1, right, confidence
    return {"calibration": calibration}


@given(patients=st.lists(IMAGES, min_size=1, max_size=40), least=st.integers(1, 15))
def test_every_point_is_of_enough_patients_and_no_image_is_lost(
    patients: list[list[tuple[float, bool]]], least: int
) -> None:
    curve = reliability([row(images) for images in patients], least)
    least = max(least, LEAST_PATIENTS)
    assert all(point.patients >= least for point in curve)
    assert bool(curve) == (len(patients) >= least)
    sure = [point.confidence for point in curve]
    assert sure == sorted(sure)


@given(patients=st.lists(IMAGES.map(lambda images: images[:1]), min_size=1, max_size=40))
def test_of_single_bins_the_curve_gives_the_calibration_error(
    patients: list[list[tuple[float, bool]]],
) -> None:
    rows = [row(images) for images in patients]
    rows *= LEAST_PATIENTS
    curve = reliability(rows, 1)
    apart = [point.patients * abs(point.accuracy - point.confidence) for point in curve]
    total = np.sum([of["calibration"] for of in rows], axis=0)
    assert sum(apart) / len(rows) == pytest.approx(expected_calibration_error(total))


def test_a_segmentation_has_no_curve() -> None:
    assert reliability([{"dice": np.ones(1)}], 1) == []
    assert reliability([], 1) == []
