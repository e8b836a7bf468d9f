from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.sampling import cohort_of_round

NAMES = [f"st-{letter}" for letter in "abcdefghij"]


@given(order=st.permutations(NAMES), fraction=st.floats(0.01, 1.0), number=st.integers(1, 99))
def test_the_cohort_does_not_depend_on_the_order_of_names(
    order: list[str], fraction: float, number: int
) -> None:
    cohort = cohort_of_round(order, fraction, 3, number)
    assert cohort == cohort_of_round(NAMES, fraction, 3, number)
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(NAMES)


@given(hundredths=st.integers(1, 100), sites=st.integers(1, 200))
@example(hundredths=7, sites=100)
@example(hundredths=55, sites=100)
def test_the_share_is_rounded_up(hundredths: int, sites: int) -> None:
    names = [str(site) for site in range(sites)]
    share = -(-Fraction(hundredths, 100) * sites // 1)
    assert len(cohort_of_round(names, hundredths / 100, 0, 1)) == share


def test_rounds_and_seeds_draw_other_cohorts() -> None:
    rounds = {tuple(cohort_of_round(NAMES, 0.5, 0, number)) for number in range(1, 21)}
    seeds = {tuple(cohort_of_round(NAMES, 0.5, seed, 1)) for seed in range(20)}
    assert len(rounds) > 10
    assert len(seeds) > 10


def test_every_site_has_its_turn_equally_often() -> None:
    rounds = 2000
    asked = [site for number in range(rounds) for site in cohort_of_round(NAMES, 0.3, 5, number)]
    for site in NAMES:
        # Five standard deviations of a binomial of p 0.3.
        assert asked.count(site) == pytest.approx(0.3 * rounds, abs=5 * (0.21 * rounds) ** 0.5)


def test_all_sites_are_asked_with_fraction_one() -> None:
    assert cohort_of_round(reversed(NAMES), 1.0, 0, 1) == NAMES
    assert cohort_of_round([], 1.0, 0, 1) == []
