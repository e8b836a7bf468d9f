import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from common.tasks.ranking import (
    CALIBRATION_BINS,
    SCORE_BINS,
    area_under_roc,
    confidence_bin,
    expected_calibration_error,
    patient_sums,
    score_bin,
    sensitivity,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

bins = hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, SCORE_BINS - 1))


def auroc(truth: NDArray[np.generic], scores: NDArray[np.generic]) -> float:
    """The Mann-Whitney statistic of the scores themselves, over the number of pairs."""
    positive = truth.astype(bool)
    ranked = mannwhitneyu(scores[positive], scores[~positive], method="asymptotic")
    return float(ranked.statistic / (positive.sum() * (~positive).sum()))


def histogram(of: Ints) -> Floats:
    return np.bincount(of, minlength=SCORE_BINS).astype(np.float64)


@given(negatives=bins, positives=bins)
def test_auroc_of_binned_scores_is_exact(negatives: Ints, positives: Ints) -> None:
    truth = np.r_[np.zeros(len(negatives)), np.ones(len(positives))]
    expected = auroc(truth, np.r_[negatives, positives])
    area = area_under_roc(histogram(negatives), histogram(positives))
    assert area == pytest.approx(expected, abs=1e-12)


@given(
    negatives=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-14, 14)),
    positives=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-14, 14)),
)
def test_auroc_is_off_by_at_most_half_the_pairs_in_one_bin(
    negatives: Floats, positives: Floats
) -> None:
    def binned(logits: Floats) -> Ints:
        p = 1 / (1 + np.exp(-logits))
        return np.array([score_bin(np.array([1 - q, q]), 1) for q in p])

    def sigmoid(logits: Floats) -> Floats:
        return 1 / (1 + np.exp(-logits))

    truth = np.r_[np.zeros(len(negatives)), np.ones(len(positives))]
    exact = auroc(truth, sigmoid(np.r_[negatives, positives]))
    together = np.mean(binned(negatives)[:, None] == binned(positives)[None, :])
    area = area_under_roc(histogram(binned(negatives)), histogram(binned(positives)))
    assert abs(area - exact) <= together / 2 + 1e-12


@given(negatives=bins, positives=bins)
def test_auroc_turns_round_with_the_classes(negatives: Ints, positives: Ints) -> None:
    a, b = histogram(negatives), histogram(positives)
    assert area_under_roc(a, b) == pytest.approx(1 - area_under_roc(b, a), abs=1e-12)


@given(negatives=bins, positives=bins)
def test_sensitivity_equals_the_naive_way(negatives: Ints, positives: Ints) -> None:
    thresholds = [*np.r_[negatives, positives], SCORE_BINS]
    naive = max(
        np.mean(positives >= t)
        for t in thresholds
        if np.sum(negatives >= t) <= len(negatives) // 20
    )
    assert sensitivity(histogram(negatives), histogram(positives)) == pytest.approx(naive)


def test_one_false_call_in_twenty_is_95_percent_specificity() -> None:
    # One negative above all positives; 20 negatives allow it, 19 do not.
    def found(low: int) -> float:
        return sensitivity(histogram(np.r_[[9], np.zeros(low, int)]), histogram(np.full(3, 5)))

    assert (found(19), found(18)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0, 0), (1.0, SCORE_BINS - 1), (0.5, SCORE_BINS // 2)]
)
def test_score_bins_reach_from_never_to_certain(p: float, expected: int) -> None:
    assert score_bin(np.array([1 - p, p]), 1) == expected


def test_score_bins_rise_with_the_probability() -> None:
    found = [score_bin(np.array([1 - p, p]), 1) for p in np.linspace(0, 1, 500)]
    assert found == sorted(found)


def test_certainty_keeps_its_digits_in_the_other_class() -> None:
    # Both are 1 in float32; the other class tells them apart.
    sure, surer = np.array([9e-6, 1.0]), np.array([7e-6, 1.0])
    assert score_bin(sure, 1) < score_bin(surer, 1)


@pytest.mark.parametrize(("confidence", "expected"), [(0.0, 0), (0.05, 0), (0.5, 7), (1.0, 14)])
def test_confidence_bins_are_closed_above(confidence: float, expected: int) -> None:
    assert confidence_bin(confidence) == expected


def test_perfectly_calibrated_bins_have_no_error() -> None:
    calibration = np.zeros((3, CALIBRATION_BINS))
    calibration[:, 11] = 4, 3, 3.0
    assert expected_calibration_error(calibration) == 0.0


def test_patient_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="without images"):
        patient_sums([])
