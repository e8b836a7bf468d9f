from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract import Profile
from common.profile import AMPLITUDE_LIMIT, AMPLITUDES, BINS, INTENSITY, RANGES
from server.evaluation.reference import STEPS, amplitudes_of, reference_of
from tests.builders import PICTURES, study_from

STUDY = study_from(*PICTURES)
LOW, HIGH = RANGES["zscore"]


def told(shares: Sequence[float], patients: int = 5) -> Profile:
    return Profile(patients=patients, noise_std=0.0, parts={INTENSITY: list(shares)})


def at_bin(place: int) -> list[float]:
    return [float(place == index) for index in range(BINS)]


@given(st.lists(st.floats(-0.2, 1.0), min_size=BINS, max_size=BINS))
def test_it_rises_from_end_to_end_whatever_noise_makes_of_a_bin(shares: list[float]) -> None:
    shares[0] = 1.0
    reference = reference_of([told(shares)], STUDY)
    assert len(reference) == STEPS + 1
    assert reference == sorted(reference)
    assert reference[0] >= LOW
    assert reference[-1] <= HIGH


def test_equal_bins_give_equal_steps() -> None:
    reference = reference_of([told([1 / BINS] * BINS)], STUDY)
    np.testing.assert_allclose(reference, np.linspace(LOW, HIGH, STEPS + 1), atol=1e-3)


def test_it_ends_where_the_images_do() -> None:
    # The shares' sum is not 1 to the last digit.
    shares = [0.1 if 3 <= place < 13 else 0.0 for place in range(BINS)]
    reference = reference_of([told(shares)], STUDY)
    width = (HIGH - LOW) / BINS
    assert reference[0] == pytest.approx(LOW + 3 * width)
    assert reference[-1] == pytest.approx(LOW + 13 * width)


def test_a_site_counts_by_its_patients() -> None:
    dark, bright = told(at_bin(2), patients=30), told(at_bin(12), patients=10)
    reference = reference_of([dark, bright], STUDY)
    width = (HIGH - LOW) / BINS
    # Three quarters of the voxels are in the third bin, and the rest in the thirteenth.
    assert max(reference[: int(0.75 * STEPS)]) <= LOW + 3 * width + 1e-3
    assert min(reference[int(0.75 * STEPS) + 1 :]) >= LOW + 12 * width - 1e-3
    assert reference_of([bright, dark], STUDY) == pytest.approx(reference)


def test_amplitudes_are_told_in_no_order_of_the_sites_and_never_negative() -> None:
    first, second = ([value, *[0.1] * 24] for value in (0.5, -0.3))
    profiles = [
        Profile(patients=3, noise_std=0.1, parts={AMPLITUDES: values}) for values in (first, second)
    ]
    told = amplitudes_of(profiles)
    assert told == amplitudes_of(profiles[::-1])
    assert told[0][0] == 0
    assert told[1][0] == AMPLITUDE_LIMIT * 0.5
