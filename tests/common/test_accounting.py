import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import PrivacyAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from common.accounting import PrivateSteps, epsilon_of, noise_for

ORDERS = RDPAccountant.DEFAULT_ALPHAS


def schedules(least_noise: float, highest_rate: float) -> st.SearchStrategy[list[PrivateSteps]]:
    entry = st.builds(
        PrivateSteps,
        noise_multiplier=st.floats(least_noise, 4.0),
        sample_rate=st.floats(0.01, highest_rate),
        steps=st.integers(1, 300),
    )
    return st.lists(entry, min_size=1, max_size=3)


def epsilon_by(accountant: PrivacyAccountant, history: list[PrivateSteps], delta: float) -> float:
    for entry in history:
        gaussian = dp_event.GaussianDpEvent(entry.noise_multiplier)
        sampled = dp_event.PoissonSampledDpEvent(entry.sample_rate, gaussian)
        accountant.compose(sampled, entry.steps)
    return float(accountant.get_epsilon(delta))


# dp-accounting drops orders that do not converge, and is then up to 2 % above.
@settings(max_examples=15, deadline=None)
@given(schedules(2.0, 0.2))
def test_epsilon_agrees_with_an_independent_accountant(history: list[PrivateSteps]) -> None:
    theirs = epsilon_by(RdpAccountant(ORDERS), history, 1e-3)
    assert epsilon_of(history, 1e-3) == pytest.approx(theirs, rel=0.03, abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(schedules(0.7, 0.9))
def test_epsilon_is_never_below_the_tight_bound(history: list[PrivateSteps]) -> None:
    tight = epsilon_by(PLDAccountant(), history, 1e-3)
    assert epsilon_of(history, 1e-3) >= 0.999 * tight


@settings(max_examples=20, deadline=None)
@given(schedules(0.7, 0.9), schedules(0.7, 0.9))
def test_more_steps_never_cost_less(first: list[PrivateSteps], more: list[PrivateSteps]) -> None:
    assert epsilon_of([*first, *more], 1e-3) >= epsilon_of(first, 1e-3)


def test_no_steps_cost_nothing() -> None:
    assert epsilon_of([], 1e-3) == 0.0


@pytest.mark.parametrize("target", [0.5, 1.0, 8.0])
def test_noise_for_a_target_meets_it_closely(target: float) -> None:
    noise = noise_for(target, 1e-3, 0.2, 100)
    steps = PrivateSteps(noise_multiplier=noise, sample_rate=0.2, steps=100)
    assert 0.98 * target <= epsilon_of([steps], 1e-3) <= target


def test_a_target_that_no_noise_meets_is_told() -> None:
    with pytest.raises(ValueError, match="cannot be met"):
        noise_for(1e-9, 1e-3, 1.0, 10**6)
