import math
import random
import warnings

import numpy as np
import pytest
from dp_accounting import dp_event, gaussian_mechanism
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from common.accounting import (
    NOISE_TOLERANCE,
    PrivateSteps,
    epsilon_of,
    epsilons_of,
    gaussian_release,
    noise_for,
)

DELTA = 1e-3
FEW = settings(max_examples=15, deadline=None)


def steps_of(noise: float, rate: float, steps: int) -> PrivateSteps:
    return PrivateSteps(noise_multiplier=noise, sample_rate=rate, steps=steps)


ENTRY = st.builds(
    steps_of,
    st.floats(0.5, 20.0),
    st.one_of(st.floats(1e-3, 0.99), st.just(1.0)),
    st.integers(1, 300),
)
HISTORY = st.lists(ENTRY, min_size=1, max_size=4)


def random_schedule(seed: int) -> list[PrivateSteps]:
    """Studies of one site: noise and batch change; every second has plain Gaussian releases."""
    draw = np.random.default_rng(seed)
    history = [
        steps_of(
            float(draw.uniform(0.8, 4)), float(draw.uniform(0.005, 0.4)), int(draw.integers(60))
        )
        for _ in range(draw.integers(1, 4))
    ]
    releases = [gaussian_release(float(draw.uniform(3, 20))) for _ in range(draw.integers(1, 4))]
    return history + releases if seed % 2 else history


def by_an_independent_accountant(history: list[PrivateSteps], delta: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=3e-4)
    for entry in history:
        gaussian = dp_event.GaussianDpEvent(entry.noise_multiplier)
        sampled = dp_event.PoissonSampledDpEvent(entry.sample_rate, gaussian)
        accountant.compose(sampled, entry.steps)
    return float(accountant.get_epsilon(delta))


def by_opacus(history: list[PrivateSteps], delta: float) -> float:
    accountant = RDPAccountant()
    accountant.history = [(e.noise_multiplier, e.sample_rate, e.steps) for e in history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta))


@pytest.mark.parametrize("seed", range(20))
def test_epsilon_agrees_with_an_independent_accountant(seed: int) -> None:
    history, delta = random_schedule(seed), 10.0 ** -random.Random(seed).uniform(2, 6)
    theirs = by_an_independent_accountant(history, delta)
    bounds = epsilons_of(history, delta)
    assert bounds.prv is not None
    # Theirs is an upper bound as well, on another grid.
    assert 0.999 * theirs <= bounds.prv <= 1.01 * theirs
    assert theirs <= bounds.rdp <= 1.005 * by_opacus(history, delta)


@pytest.mark.parametrize("steps", [1, 30, 10_000])
@pytest.mark.parametrize("delta", [0.1, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("epsilon", [0.3, 5.0])
def test_numerical_composition_is_never_below_the_exact_curve(
    steps: int, delta: float, epsilon: float
) -> None:
    noise = noise_for(epsilon, delta, 1.0, steps)
    exact = epsilons_of([steps_of(noise, 1.0, steps)], delta).exact
    # A patient who is left out once in 1e12 steps: the same in the digits that count, but no
    # longer a plain Gaussian.
    composed = epsilons_of([steps_of(noise, 1.0 - 1e-12, steps)], delta).prv
    assert exact is not None
    if delta < 1e-12 * steps:
        assert composed is None
    else:
        assert composed is not None
        assert exact <= composed <= 1.003 * exact


@FEW
@given(noise=st.floats(0.05, 100.0), exponent=st.floats(0.5, 12.0))
def test_a_plain_gaussian_has_its_exact_epsilon(noise: float, exponent: float) -> None:
    delta = 10.0**-exponent
    theirs = gaussian_mechanism.get_epsilon_gaussian(noise, delta)
    assert epsilon_of([gaussian_release(noise)], delta) == pytest.approx(theirs, abs=1e-8)


@FEW
@given(noises=st.lists(st.floats(0.5, 50.0), min_size=1, max_size=8))
def test_plain_gaussians_are_one_of_the_summed_precision(noises: list[float]) -> None:
    together = epsilons_of([gaussian_release(noise) for noise in noises], DELTA)
    one = epsilons_of([gaussian_release(sum(n**-2 for n in noises) ** -0.5)], DELTA)
    assert together.prv is None
    assert together.exact == pytest.approx(one.exact, rel=1e-9)


@FEW
@given(history=HISTORY, more=ENTRY, delta=st.sampled_from([1e-2, 1e-5]))
def test_more_steps_never_cost_less(
    history: list[PrivateSteps], more: PrivateSteps, delta: float
) -> None:
    longer = steps_of(more.noise_multiplier, more.sample_rate, more.steps + 1)
    costs = [epsilon_of([*history, *last], delta) for last in ([], [more], [longer])]
    assert costs == sorted(costs)


@FEW
@given(history=HISTORY, data=st.data())
def test_the_order_of_entries_does_not_matter(
    history: list[PrivateSteps], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(history))
    assert epsilons_of(other, DELTA) == epsilons_of(history, DELTA)


@FEW
@given(entry=ENTRY, first=st.integers(0, 300), others=st.lists(ENTRY, max_size=2))
def test_splitting_steps_into_two_entries_does_not_matter(
    entry: PrivateSteps, first: int, others: list[PrivateSteps]
) -> None:
    noise, rate = entry.noise_multiplier, entry.sample_rate
    halves = [steps_of(noise, rate, first), *others, steps_of(noise, rate, entry.steps)]
    whole = [steps_of(noise, rate, first + entry.steps), *others]
    assert epsilons_of(halves, DELTA) == epsilons_of(whole, DELTA)


@FEW
@given(history=HISTORY, exponent=st.floats(0.1, 14.0))
def test_the_value_is_the_tightest_bound(history: list[PrivateSteps], exponent: float) -> None:
    bounds = epsilons_of(history, 10.0**-exponent)
    told = [b for b in (bounds.rdp, bounds.prv, bounds.exact) if b is not None]
    assert 0.0 <= bounds.value == min(told)
    assert bounds.value == epsilon_of(history, 10.0**-exponent)


def test_no_steps_cost_nothing() -> None:
    assert epsilon_of([], DELTA) == 0.0
    assert epsilon_of([steps_of(1.0, 0.0, 10), steps_of(1.0, 0.5, 0)], DELTA) == 0.0


def test_noise_that_hides_nothing_costs_everything() -> None:
    assert epsilon_of([steps_of(1e-9, 0.1, 1), steps_of(2.0, 0.1, 1)], DELTA) == math.inf


def test_a_delta_below_the_round_off_leaves_renyi_alone() -> None:
    bounds = epsilons_of([steps_of(1.0, 0.1, 100)], 1e-13)
    assert bounds.prv is None
    assert (
        bounds.value
        == bounds.rdp
        == pytest.approx(by_opacus([steps_of(1.0, 0.1, 100)], 1e-13), rel=0.005)
    )


@pytest.mark.parametrize("delta", [1e-300, 1e-10, 1e-3, 0.999])
@pytest.mark.parametrize("rate", [1e-300, 1e-9, 0.5, 1.0 - 1e-15, 1.0])
@pytest.mark.parametrize("noise", [1e-3, 0.05, 1.0, 1e5, 1e300, math.inf])
def test_no_history_makes_a_warning(noise: float, rate: float, delta: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (1, 1000, 10**9):
            history = [steps_of(noise, rate, steps), gaussian_release(30.0)]
            bounds = epsilons_of(history, delta)
            assert bounds.value >= epsilon_of(history[1:], delta)
            assert math.isfinite(bounds.rdp)


@pytest.mark.parametrize(("target", "rate"), [(0.5, 0.2), (1.0, 0.01), (8.0, 0.2), (2.0, 1.0)])
def test_noise_for_a_target_meets_it_and_less_noise_does_not(target: float, rate: float) -> None:
    noise = noise_for(target, DELTA, rate, 100)
    assert epsilon_of([steps_of(noise, rate, 100)], DELTA) <= target
    assert epsilon_of([steps_of(noise / (1 + 2 * NOISE_TOLERANCE), rate, 100)], DELTA) > target


def test_a_target_that_no_noise_meets_is_told() -> None:
    with pytest.raises(ValueError, match="cannot be met"):
        noise_for(1e-3, 1e-12, 0.5, 10**4)


def test_a_release_is_one_step_that_every_patient_is_in() -> None:
    assert gaussian_release(4.0) == steps_of(4.0, 1.0, 1)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_that_is_no_chance_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        epsilon_of([gaussian_release(1.0)], delta)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [(-0.1, 0.1, 1), (math.nan, 0.1, 1), (1.0, 1.1, 1), (1.0, math.nan, 1), (1.0, 0.1, -1)],
)
def test_steps_that_cannot_be_are_refused(noise: float, rate: float, steps: int) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        steps_of(noise, rate, steps)
