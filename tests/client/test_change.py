"""Change is found, and no change is called one no more often than was said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.change import SLACK, cumulative, scores_of, watched

RATE = 0.05


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_the_sum_is_pages_recursion(scores: list[float]) -> None:
    expected, last = [], 0.0
    for score in scores:
        last = max(0.0, last + score - SLACK)
        expected.append(last)
    np.testing.assert_allclose(cumulative(np.array(scores)), expected, atol=1e-9)


def patients(seed: int, count: int, away: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(away, 1.0, (count, 30))


def test_alarms_without_a_change_are_as_rare_as_was_said() -> None:
    alarms = sum(
        watched(patients(2 * i, 60), patients(2 * i + 1, 40), RATE, seed=i).alarm is not None
        for i in range(150)
    )
    # 150 x 0.05 = 7.5; a reference of 60 is itself drawn by chance.
    assert alarms <= 18


def test_a_change_is_found_soon_after_it_and_not_before() -> None:
    found = []
    for i in range(20):
        new = np.concatenate([patients(3 * i, 20), patients(3 * i + 1, 20, away=1.0)])
        found.append(watched(patients(3 * i + 2, 60), new, RATE, seed=i).alarm)
    late = [alarm for alarm in found if alarm is not None and alarm >= 20]
    assert len(late) >= 17
    assert np.median([alarm - 20 for alarm in late]) <= 3


def test_reference_patients_are_held_against_the_others() -> None:
    reference = patients(1, 30)
    known, _ = scores_of(reference, reference[:1])
    others = np.delete(reference, 4, axis=0)
    _, (alone,) = scores_of(others, reference[4:5])
    log_known = np.argsort(known)
    assert known.mean() == pytest.approx(0, abs=1e-9)
    assert known.std() == pytest.approx(1)
    assert (alone > 0) == (log_known.tolist().index(4) > 14) or abs(alone) < 0.5


def test_too_few_patients_and_no_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="9 patients before and 3 after"):
        watched(patients(0, 9), patients(1, 3), RATE, 0)
    with pytest.raises(ValueError, match=r"false_alarm_rate=1\.5"):
        watched(patients(0, 20), patients(1, 3), 1.5, 0)


def test_equal_patients_give_no_alarm() -> None:
    same = np.ones((20, 5))
    assert watched(same, same[:4], RATE, 0).alarm is None
