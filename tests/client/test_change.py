"""Change is found, and no change is called one no more often than was said."""

import numpy as np
import pytest
from scipy.stats import binom

from client.change import scores_of, watched

RATE = 0.05


def patients(seed: int, count: int, away: float = 0.0, numbers: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).normal(away, 1.0, (count, numbers))


def alarms(draws: int, before: int, after: int, away: float = 0.0) -> int:
    """Return how many of so many sites have an alarm; patients after are `away` in each number."""
    count = 0
    for i in range(draws):
        known = patients(2 * i, before, numbers=10)
        new = patients(2 * i + 1, after, away, numbers=10)
        count += watched(known, new, RATE, seed=i).alarm is not None
    return count


@pytest.mark.parametrize(("before", "after"), [(20, 12), (60, 40)])
def test_alarms_without_a_change_are_as_rare_as_was_said(before: int, after: int) -> None:
    assert alarms(1000, before, after) <= binom.ppf(0.999, 1000, RATE)


def test_a_change_by_a_standard_deviation_is_found_nearly_always() -> None:
    assert alarms(200, 60, 40, away=1.0) >= binom.ppf(0.001, 200, 0.98)


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
