import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from simulation.audit_bound import (
    auc_interval,
    best_bound,
    epsilon_bound,
    most_to_show,
    p_value,
    roc_curve,
)

GUESSES = st.integers(0, 60).flatmap(
    lambda v: st.tuples(st.just(v), st.integers(max(v, 1), 60), st.integers(60, 200))
)


def naive_p_value(epsilon: float, correct: int, guesses: int, canaries: int, delta: float) -> float:
    """Return the p-value by sums over the binomial's masses, one by one."""
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [float(binom.pmf(k, guesses, rate)) for k in range(guesses + 1)]
    means = [sum(mass[correct - i : correct]) / i for i in range(1, correct + 1)]
    return min(1.0, sum(mass[correct:]) + 2 * canaries * delta * max(means, default=0.0))


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_bounds_printed_in_the_paper_come_out(
    canaries: int, guesses: int, correct: int, delta: float, published: float
) -> None:
    bound = epsilon_bound(correct, guesses, canaries, delta)
    assert bound == pytest.approx(published, abs=1e-3)


@settings(max_examples=60)
@given(numbers=GUESSES, epsilon=st.floats(0, 6), delta=st.sampled_from([0.0, 1e-6, 1e-3, 0.1]))
def test_p_value_is_that_of_the_naive_sums(
    numbers: tuple[int, int, int], epsilon: float, delta: float
) -> None:
    correct, guesses, canaries = numbers
    ours = p_value(epsilon, correct=correct, guesses=guesses, canaries=canaries, delta=delta)
    naive = naive_p_value(epsilon, correct, guesses, canaries, delta)
    assert ours == pytest.approx(naive, abs=1e-9)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_bound_never_falls_with_the_right_guesses(delta: float) -> None:
    bounds = [epsilon_bound(v, 80, 200, delta) for v in range(81)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > 1


@pytest.mark.parametrize("guesses", [2, 50, 1000])
def test_half_right_guesses_bound_nothing(guesses: int) -> None:
    assert epsilon_bound(guesses // 2, guesses, 1000, 1e-5) == 0.0


@given(numbers=GUESSES)
def test_a_larger_delta_never_proves_more(numbers: tuple[int, int, int]) -> None:
    bounds = [epsilon_bound(*numbers, delta) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert bounds == sorted(bounds, reverse=True)


def test_at_delta_of_one_over_the_patients_perfect_guesses_show_nothing() -> None:
    assert most_to_show(200, 1 / 240) == 0.0
    assert most_to_show(200, 1e-5) == pytest.approx(3.8, abs=0.05)


def responses(epsilon: float, canaries: int, seed: int) -> tuple[Sequence[float], Sequence[bool]]:
    """Return scores and memberships where each canary's bit is told by randomised response."""
    draws = np.random.default_rng(seed)
    present = draws.random(canaries) < 0.5
    honest = draws.random(canaries) < 1 / (1 + math.exp(-epsilon))
    # Ties are broken by chance: the answers say nothing beyond the bit.
    scores = (present == honest) + 0.1 * draws.random(canaries)
    return list(scores), list(present)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_bound_exceeds_the_epsilon_of_randomised_response_in_at_most_5_of_100_trials(
    epsilon: float,
) -> None:
    bounds = [best_bound(*responses(epsilon, 100, seed), 0.0).epsilon for seed in range(400)]
    assert sum(bound > epsilon for bound in bounds) <= 0.05 * len(bounds)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_bound_comes_near_the_epsilon_of_randomised_response_with_many_guesses(
    epsilon: float,
) -> None:
    bound = best_bound(*responses(epsilon, 100_000, 1), 0.0).epsilon
    assert 0.95 * epsilon < bound <= epsilon


def test_what_the_order_of_the_canaries_is_does_not_matter() -> None:
    scores, present = responses(1.0, 200, 3)
    assert best_bound(scores, present, 1e-5) == best_bound(scores[::-1], present[::-1], 1e-5)


def test_numbers_of_no_audit_are_refused() -> None:
    with pytest.raises(ValueError, match="correct=5, guesses=4, canaries=10"):
        p_value(1.0, correct=5, guesses=4, canaries=10, delta=0.0)


@settings(max_examples=50)
@given(
    scores=st.lists(st.integers(0, 8), min_size=4, max_size=30),
    data=st.data(),
)
def test_auc_is_the_share_of_pairs_in_the_right_order(
    scores: list[int], data: st.DataObject
) -> None:
    size = len(scores)
    rest = data.draw(st.lists(st.booleans(), min_size=size - 2, max_size=size - 2))
    present = [True, False, *rest]
    ins = [s for s, there in zip(scores, present, strict=True) if there]
    outs = [s for s, there in zip(scores, present, strict=True) if not there]
    pairs = [(a > b) + (a == b) / 2 for a in ins for b in outs]
    found = auc_interval(scores, present)
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_auc_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0)
    present = np.arange(80) < 40
    # Normal scores a distance d apart have the area Phi(d / sqrt 2) = 0.9.
    shift = 1.8124 * present
    found = [auc_interval(draws.normal(size=80) + shift, present) for _ in range(400)]
    assert np.mean([interval.low <= 0.9 <= interval.high for interval in found]) >= 0.93


def test_an_auc_of_one_kind_of_canary_is_refused() -> None:
    with pytest.raises(ValueError, match="of 3 canaries 3 are in"):
        auc_interval([1.0, 2.0, 3.0], [True, True, True])


def test_roc_curve_encloses_the_auc() -> None:
    scores, present = responses(1.0, 60, 0)
    false, true = roc_curve(scores, present)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(auc_interval(scores, present).value)
