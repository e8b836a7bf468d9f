from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract import Description, Profile
from common.profile import impossible_profile, noise_std, sizes_of, strata_of, told_patients
from tests.builders import PICTURES, SLICES, study_from

STUDIES = pytest.mark.parametrize("overrides", [PICTURES, SLICES])


@given(multiplier=st.floats(0.1, 10), parts=st.integers(1, 9), patients=st.integers(1, 1000))
def test_noise_is_the_multiplier_over_how_far_one_patient_moves_a_mean(
    multiplier: float, parts: int, patients: int
) -> None:
    # The worst patient: every part of length 1, and of the other sign in the other data set.
    furthest = (parts * 2.0**2) ** 0.5 / patients
    assert noise_std(multiplier, parts, patients) == pytest.approx(multiplier * furthest)


ABOUT = Description(site="a", patients_train=2, patients_held_out=1, images_train=9, bad_files=0)


def told(sizes: Mapping[str, int], number: float = 0.5, **changes: Any) -> Profile:
    parts = {name: [number] * size for name, size in sizes.items()}
    return Profile(**{"patients": 3, "noise_std": 0.1, "parts": parts, **changes})


@STUDIES
def test_a_profile_of_the_studys_parts_and_the_sites_patients_is_possible(
    overrides: tuple[str, ...],
) -> None:
    sizes = sizes_of(study_from(*overrides))
    assert sizes["features"] == strata_of(study_from(*overrides)) * 8
    assert impossible_profile(told(sizes), sizes, ABOUT) is None
    assert impossible_profile(told(sizes, 1.7), sizes, ABOUT) is None
    for changes, why in (
        ({"parts": {**told(sizes).parts, "strata": [0.5] * 99}}, "other parts"),
        ({"patients": 10_000_000}, "other patients"),
        ({"noise_std": 9.0}, "more than there is to tell"),
        ({"number": 2.0}, "not possible"),
        ({"number": 1.1, "noise_std": 0.0}, "not possible"),
    ):
        assert why in str(impossible_profile(told(sizes, **changes), sizes, ABOUT))


def test_a_side_of_too_few_patients_is_not_told_of() -> None:
    assert told_patients((40, 12), 10) == 52
    assert told_patients((40, 9), 10) == 40
    assert told_patients((3, 9), 10) == 0


@pytest.mark.parametrize(("patients", "std"), [(0, 0.0), (1, -0.1), (1, float("nan"))])
def test_a_profile_of_nobody_or_without_a_spread_is_not_possible(patients: int, std: float) -> None:
    with pytest.raises(ValueError, match="not possible"):
        Profile(patients=patients, noise_std=std, parts={})
