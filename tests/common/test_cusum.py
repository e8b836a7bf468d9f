"""Page's sum, and a threshold that runs without a change pass as rarely as was said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from common.cusum import SLACK, cumulative, first_above, threshold_of


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_the_sum_is_pages_recursion(scores: list[float]) -> None:
    expected, last = [], 0.0
    for score in scores:
        last = max(0.0, last + score - SLACK)
        expected.append(last)
    np.testing.assert_allclose(cumulative(np.array(scores)), expected, atol=1e-9)


def test_each_run_has_a_sum_of_its_own() -> None:
    runs = np.random.default_rng(0).normal(size=(7, 20))
    np.testing.assert_array_equal(cumulative(runs), [cumulative(run) for run in runs])


def test_new_runs_without_a_change_pass_the_threshold_as_rarely_as_was_said() -> None:
    draws = np.random.default_rng(1)
    threshold = threshold_of(draws.normal(size=(50_000, 15)), 0.05)
    passed = sum(
        first_above(cumulative(run), threshold) is not None
        for run in draws.normal(size=(10_000, 15))
    )
    assert binom.ppf(0.001, 10_000, 0.05) <= passed <= binom.ppf(0.999, 10_000, 0.05)


def test_an_alarm_is_the_first_sum_above_the_threshold() -> None:
    assert first_above(np.array([0.0, 2.0, 1.0, 3.0]), 1.5) == 1
    assert first_above(np.array([0.0, 2.0]), 2.0) is None


@pytest.mark.parametrize("rate", [0.0, 1.0, 1.5])
def test_no_chance_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=f"false_alarm_rate={rate}"):
        threshold_of(np.zeros((10, 3)), rate)
