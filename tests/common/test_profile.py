import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract import Profile
from common.profile import impossible_profile, noise_std, sizes_of, strata_of
from tests.builders import PICTURES, SLICES, study_from

STUDIES = pytest.mark.parametrize("overrides", [PICTURES, SLICES])


@given(multiplier=st.floats(0.1, 10), parts=st.integers(1, 9), patients=st.integers(1, 1000))
def test_noise_is_the_multiplier_over_how_far_one_patient_moves_a_mean(
    multiplier: float, parts: int, patients: int
) -> None:
    # The worst patient: every part of length 1, and of the other sign in the other data set.
    furthest = (parts * 2.0**2) ** 0.5 / patients
    assert noise_std(multiplier, parts, patients) == pytest.approx(multiplier * furthest)


@STUDIES
def test_a_profile_of_the_studys_parts_is_possible(overrides: tuple[str, ...]) -> None:
    sizes = sizes_of(study_from(*overrides))
    fits = Profile(patients=3, noise_std=0.1, parts={n: [0.5] * of for n, of in sizes.items()})
    assert impossible_profile(fits, sizes) is None
    assert sizes["features"] == strata_of(study_from(*overrides)) * 8
    longer = Profile(patients=3, noise_std=0.1, parts={**fits.parts, "strata": [0.5] * 99})
    assert "other parts" in str(impossible_profile(longer, sizes))


@pytest.mark.parametrize(("patients", "std"), [(0, 0.0), (1, -0.1), (1, float("nan"))])
def test_a_profile_of_nobody_or_without_a_spread_is_not_possible(patients: int, std: float) -> None:
    with pytest.raises(ValueError, match="not possible"):
        Profile(patients=patients, noise_std=std, parts={})
