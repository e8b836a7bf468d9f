"""Distances are what their definitions say, and noise does not push sites apart on average."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, stats

from common.contract import Profile
from common.newcomer import apart
from common.profile import BINS, FEATURE_NUMBERS, sizes_of
from server.evaluation.distance import (
    distances_of,
    frechet,
    mmd,
    parts_of,
    shares,
    wasserstein,
)
from tests.builders import SLICES, study_from

STUDY = study_from(*SLICES)
SIZES = sizes_of(STUDY)
STRATA = SIZES["strata"]
SEEDS = st.integers(0, 10_000)


def patients_of(seed: int, count: int = 30, away: float = 0.0) -> dict[str, NDArray[np.float64]]:
    """Return patients: features [N, F] of length 1 at most, strata [N, K], bins [N, B]."""
    draws = np.random.default_rng(seed)
    features = draws.normal(away, 1.0, (count, FEATURE_NUMBERS))
    features /= np.maximum(1.0, np.linalg.norm(features, axis=1, keepdims=True))
    strata = np.eye(STRATA)[draws.integers(STRATA // 2, size=count)]
    return {"features": features, "strata": strata, "bins": draws.dirichlet(np.ones(BINS), count)}


def profile_of(patients: dict[str, NDArray[np.float64]], noise_std: float = 0.0) -> Profile:
    features, strata = patients["features"], patients["strata"]
    joint = np.einsum("nk,nf->nkf", strata, features).mean(0)
    parts = {name: np.zeros(size) for name, size in SIZES.items()}
    parts["intensity"] = patients["bins"].mean(0)
    parts["strata"] = strata.mean(0)
    parts["features"] = joint.ravel()
    with_one = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    parts["moments"] = (with_one.T @ with_one / len(features) / 2).ravel()
    return Profile(
        patients=len(features),
        noise_std=noise_std,
        parts={name: values.tolist() for name, values in parts.items()},
    )


@given(first=SEEDS, second=SEEDS)
def test_distances_are_0_to_oneself_and_the_same_both_ways(first: int, second: int) -> None:
    profiles = {"a": profile_of(patients_of(first)), "b": profile_of(patients_of(second))}
    profiles["c"] = profiles["a"]
    for of in distances_of(profiles, STUDY).values():
        assert of["a"]["c"] == pytest.approx(0, abs=1e-7)
        assert of["a"]["b"] == of["b"]["a"] >= 0
        assert of["b"]["c"] == pytest.approx(of["b"]["a"], abs=1e-9)


@given(first=SEEDS, second=SEEDS)
def test_intensities_are_apart_as_scipy_says(first: int, second: int) -> None:
    a, b = (patients_of(seed)["bins"].mean(0) for seed in (first, second))
    expected = stats.wasserstein_distance(np.arange(BINS), np.arange(BINS), a, b)
    found = wasserstein(profile_of(patients_of(first)), profile_of(patients_of(second)))
    assert found == pytest.approx(expected, abs=1e-9)


@given(first=SEEDS, second=SEEDS)
def test_mmd_is_the_double_sum_over_pairs_of_patients(first: int, second: int) -> None:
    x, y = patients_of(first)["features"], patients_of(second, away=0.5)["features"]

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.mean([[(u @ v + 1) ** 2 for v in b] for u in a]))

    naive = kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    found = mmd(profile_of(patients_of(first)), profile_of(patients_of(second, away=0.5)))
    assert found**2 == pytest.approx(naive, abs=1e-9)


@given(first=SEEDS, second=SEEDS)
def test_frechet_is_that_of_means_and_covariances(first: int, second: int) -> None:
    x, y = patients_of(first)["features"], patients_of(second, away=0.5)["features"]
    a, b = np.cov(x.T, bias=True), np.cov(y.T, bias=True)
    root = np.real(linalg.sqrtm(a @ b))
    naive = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * root)
    found = frechet(profile_of(patients_of(first)), profile_of(patients_of(second, away=0.5)))
    assert found == pytest.approx(float(naive), abs=1e-6)


@given(first=SEEDS, second=SEEDS)
def test_label_and_covariate_shift_add_up_to_the_shift(first: int, second: int) -> None:
    x, y = patients_of(first), patients_of(second, away=0.5)
    parts = parts_of(profile_of(x), profile_of(y))
    whole = y["features"].mean(0) - x["features"].mean(0)
    np.testing.assert_allclose(parts.label_F + parts.covariate_F, whole, atol=1e-9)


def test_each_kind_of_shift_is_told_as_what_it_is() -> None:
    x = patients_of(1, count=400)
    place = np.einsum("nk,kf->nf", x["strata"], np.eye(STRATA, FEATURE_NUMBERS)) * 0.5
    plain = {**x, "features": place}
    other_looks = {**x, "features": place + 0.2}
    often = np.concatenate([np.flatnonzero(x["strata"][:, 0]), np.arange(100)])
    other_labels = {name: values[often] for name, values in plain.items()}
    looks = parts_of(profile_of(plain), profile_of(other_looks))
    labels = parts_of(profile_of(plain), profile_of(other_labels))
    assert np.linalg.norm(looks.label_F) == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(looks.covariate_F) == pytest.approx(0.2 * FEATURE_NUMBERS**0.5)
    assert np.linalg.norm(labels.covariate_F) == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(labels.label_F) > 0.1


@settings(max_examples=20)
@given(seed=SEEDS)
def test_noise_is_not_taken_for_distance(seed: int) -> None:
    draws = np.random.default_rng(seed)
    clean = profile_of(patients_of(seed))
    std = 0.2

    def noised() -> Profile:
        noise = {n: np.asarray(v) + draws.normal(0, std, len(v)) for n, v in clean.parts.items()}
        return Profile(
            patients=clean.patients,
            noise_std=std,
            parts={name: values.tolist() for name, values in noise.items()},
        )

    measures: dict[str, Callable[[], float]] = {
        "appearance": lambda: apart(noised(), noised(), "appearance"),
        "mmd": lambda: mmd(noised(), noised()),
    }
    for name, measure in measures.items():
        squares = [measure() ** 2 for _ in range(60)]
        blind = {"appearance": 36, "mmd": 4 * 45}[name] * 2 * std**2
        assert np.mean(squares) < 0.5 * blind


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=20))
def test_shares_are_shares_and_leave_shares_as_they_are(numbers: list[float]) -> None:
    found = shares(numbers)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares(found.tolist()), found, atol=1e-12)
