from collections.abc import Callable
from typing import Any

import pytest

from server.report.reading import before, epsilon_after, last_exposure, mean, site_names

Make = Callable[..., dict[str, Any]]


def test_site_is_named_wherever_it_is_mentioned(make: Make) -> None:
    result = make(["m"])
    result["rounds"][0]["missing"] = {"z": "late"}
    result["final"]["missing"] = {"a": "late"}
    assert site_names(result) == ["a", "m", "z"]


def test_mean_is_over_what_is_defined() -> None:
    assert mean([1.0, None, float("nan"), 3.0]) == 2.0
    assert mean([None]) is None


def test_round_without_a_site_has_no_value_of_it(make: Make) -> None:
    record = make()["rounds"][0]
    assert before(record, "st-z", "dice") is None
    assert epsilon_after(record, "st-z") is None
    assert epsilon_after(record, "st-a") == pytest.approx(0.5)


def test_last_exposure_is_the_largest_epsilon(make: Make) -> None:
    result = make(rounds=3)
    result["privacy"]["st-c"] = {**result["privacy"]["st-c"], "epsilon": 9.0}
    assert last_exposure(result) == ("st-c", 9.0)
    assert last_exposure(make(private=False)) is None
