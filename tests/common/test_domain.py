"""An image is strange where its features are far from those of the sites' patients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract import Profile
from common.domain import LEAST_PATIENTS, domain_of, domain_told
from common.profile import FEATURE_NUMBERS, MOMENTS
from tests.finished import domain_at

PLACES = st.integers(0, 1000).map(
    lambda seed: np.random.default_rng(seed).normal(0.1, 0.2, (40, FEATURE_NUMBERS))
)


def profile_of(places_NF: np.ndarray, noise_std: float = 0.0) -> Profile:
    with_one = np.concatenate([np.ones((len(places_NF), 1)), places_NF], 1)
    moments = np.einsum("ni,nj->ij", with_one, with_one) / len(places_NF) / 2
    return Profile(
        patients=len(places_NF), noise_std=noise_std, parts={MOMENTS: moments.ravel().tolist()}
    )


@given(PLACES)
def test_mean_and_covariance_are_the_patients(places_NF: np.ndarray) -> None:
    found = domain_of(profile_of(places_NF))
    np.testing.assert_allclose(found.mean_F, places_NF.mean(0), atol=1e-12)
    covariance = np.cov(places_NF.T, bias=True)
    np.testing.assert_allclose(found.covariance_FF, covariance, atol=1e-12)


@given(PLACES, st.floats(0, 5))
def test_the_distance_does_not_change_with_the_axes(places_NF: np.ndarray, away: float) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(FEATURE_NUMBERS,) * 2))
    place = places_NF.mean(0) + away * places_NF.std(0)
    straight = domain_of(profile_of(places_NF)).distance(place)
    assert domain_of(profile_of(places_NF @ turn)).distance(place @ turn) == pytest.approx(
        straight, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize(("patients", "times"), [(LEAST_PATIENTS, 200), (60, 100), (5000, 1)])
def test_about_one_in_a_hundred_of_normal_patients_is_outside(patients: int, times: int) -> None:
    draws = np.random.default_rng(0)
    outside = []
    for _ in range(times):
        domain = domain_of(profile_of(draws.normal(size=(patients, FEATURE_NUMBERS))))
        new = draws.normal(size=(5000 // times, FEATURE_NUMBERS))
        outside += [domain.distance(place) > 1 for place in new]
    assert np.mean(outside) == pytest.approx(0.01, abs=0.005)


def test_of_a_few_patients_nothing_is_known() -> None:
    places = np.random.default_rng(0).normal(size=(LEAST_PATIENTS, FEATURE_NUMBERS))
    assert domain_of(profile_of(places)).unknown is None
    why = domain_of(profile_of(places[1:])).unknown
    assert why is not None
    assert why.startswith(f"the sites told of {LEAST_PATIENTS - 1} patients")


@given(PLACES, st.floats(1e-4, 1e-2))
def test_noise_never_brings_an_image_further_away(places_NF: np.ndarray, noise: float) -> None:
    exact, noised = (domain_of(profile_of(places_NF, std)) for std in (0.0, noise))
    place = np.full(FEATURE_NUMBERS, 0.9)
    assert noised.distance(place) <= exact.distance(place)


def test_noise_that_hides_the_images_is_said_to() -> None:
    assert domain_at(0.0, spread=0.1, noise_std=0.001).unknown is None
    assert domain_at(0.0, spread=0.1, noise_std=0.1).unknown is not None


def test_a_domain_is_read_as_it_was_told() -> None:
    told = domain_at(0.3).told()
    assert domain_told(told).told() == told


@pytest.mark.parametrize("change", [{"mean": [1.0]}, {"covariance": "x"}, {"patients": None}])
def test_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"shift\.domain"):
        domain_told({**domain_at(0.3).told(), **change})
