import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.report.words import (
    chance,
    data_size,
    duration,
    interval,
    number,
    plain,
    ranges,
    sentence,
    signed,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not defined"),
        (math.nan, "not defined"),
        (math.inf, "infinite"),
        (0.0, "0.000"),
        (0.8125, "0.812"),
        (-0.5, "\N{MINUS SIGN}0.500"),
        (3.14159, "3.14"),
        (412.26, "412.3"),
        (1e-5, "1e\N{MINUS SIGN}05"),
    ],
)
def test_number_has_about_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_difference_has_its_sign() -> None:
    assert [signed(0.25), signed(-0.25), signed(None)] == [
        "+0.250",
        "\N{MINUS SIGN}0.250",
        "not defined",
    ]


def test_interval_is_told_where_there_is_one() -> None:
    whole = {"value": 0.8, "low": 0.7, "high": 0.9}
    assert interval(whole) == "0.800 (0.700\N{EN DASH}0.900)"
    assert interval({**whole, "low": None}) == "0.800"
    assert interval({**whole, "value": None}) == "not defined"


@given(st.sets(st.integers(1, 60)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for piece in filter(None, ranges(numbers).split(", ")):
        first, _, last = piece.partition("\N{EN DASH}")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)


def test_sizes_and_times_choose_their_unit() -> None:
    assert [data_size(x) for x in (12, 1500, 2.5e6, 7e9)] == ["12 B", "1.5 kB", "2.5 MB", "7.0 GB"]
    assert [duration(x) for x in (None, 3.21, 245, 7620)] == [
        "not defined",
        "3.2 s",
        "4 min 05 s",
        "2 h 07 min",
    ]


def test_settings_are_plain_text() -> None:
    assert [plain(x) for x in (True, None, [], [64, 64], "unet")] == [
        "yes",
        "none",
        "none",
        "64, 64",
        "unet",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50.00 %"), (0.99966, "99.97 %"), (0.999999, "over 99.99 %"), (1.0, "over 99.99 %")],
)
def test_no_chance_is_shown_as_certain(value: float, text: str) -> None:
    assert chance(value) == text


def test_a_sentence_begins_with_a_capital_and_keeps_its_names() -> None:
    assert sentence("how bright (Wasserstein)") == "How bright (Wasserstein)"
    assert sentence("") == ""
