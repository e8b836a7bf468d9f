from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.privacy.closed import count_up_to, digits_of, float_of, names_of, number_in, same
from common.contract import RefusalError


@given(number=st.floats(0, 1), decimals=st.integers(0, 6))
def test_a_number_leaves_rounded_and_within_its_range(number: float, decimals: int) -> None:
    assert number_in(number, 0.0, 1.0, decimals) == round(number, decimals)


@given(number=st.floats(1e-6, 1e6))
def test_an_epsilon_is_rounded_up_and_a_noise_down(number: float) -> None:
    up, down = (digits_of(number, 1e9, how) for how in (ROUND_CEILING, ROUND_FLOOR))
    assert down <= number <= up
    assert up - down <= 1.1e-5 * number


@pytest.mark.parametrize(
    "value", [True, None, "1", np.float64(0.5), float("nan"), float("inf"), 10**10, [1.0]]
)
def test_what_is_no_plain_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(RefusalError) as refused:
        float_of(value)
    assert refused.value.code == "gate"


@pytest.mark.parametrize("value", [-1, 11, 1.0, True, "3"])
def test_a_count_is_a_whole_number_up_to_the_most(value: Any) -> None:
    assert count_up_to(10, 10) == 10
    with pytest.raises(RefusalError):
        count_up_to(value, 10)


def test_the_sites_own_values_and_names_are_exactly_these() -> None:
    assert same("st-a", "st-a") == "st-a"
    assert names_of({"a": 1}) == ["a"]
    for broken in (lambda: same(True, 1), lambda: same("st-b", "st-a"), lambda: names_of({1: 1})):
        with pytest.raises(RefusalError):
            broken()
