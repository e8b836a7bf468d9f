"""What a gate is made of: each lets a value through if it is what it must be, and refuses else.

A refusal says what kind of thing was held back, never which.
"""

import math
from decimal import Context
from typing import TypeVar

from common.contract import RefusalError

Same = TypeVar("Same", int, str)
MOST_WHOLE = 10**9
"""The largest whole number that is taken for a number."""
DIGITS = 6
"""Significant digits of the numbers of an account, rounded to the side that promises less."""


def names_of(of: dict[object, object]) -> list[str]:
    """Return the keys, all of which must be texts."""
    names = [name for name in of if type(name) is str]
    demand(len(names) == len(of), "a name that is no text")
    return names


def same(value: object, expected: Same) -> Same:
    """Return what the site knows itself, which the value must be."""
    demand(type(value) is type(expected) and value == expected, "a value that is not its own")
    return expected


def count_up_to(value: object, most: int) -> int:
    """Return a whole number from 0 to the most."""
    if type(value) is not int or not 0 <= value <= most:
        raise RefusalError("gate", "the site held back a count that is not possible")
    return value


def number_in(value: object, low: float, high: float, decimals: int) -> float:
    """Return a number rounded to the decimals, which must then be from low to high."""
    # Rounded before it is compared: a sum may miss the end of a range by its last digit.
    rounded = round(float_of(value), decimals) + 0.0
    demand(low <= rounded <= high, "a number beyond its range")
    return rounded


def digits_of(value: object, most: float, rounding: str) -> float:
    """Return a number from 0 to the most with DIGITS significant digits, rounded this way."""
    number = float_of(value)
    demand(0 <= number <= most, "a number beyond its range")
    return float(Context(prec=DIGITS, rounding=rounding).create_decimal(repr(number)))


def float_of(value: object) -> float:
    """Return a finite number of Python's own two kinds."""
    # Exactly these types: True is an int, and a class of its own may say of itself what it likes.
    number = value if type(value) is float else math.nan
    if type(value) is int and abs(value) <= MOST_WHOLE:
        number = float(value)
    demand(math.isfinite(number), "something that is not a finite number")
    return number


def demand(holds: bool, what: str) -> None:
    """Refuse the answer unless the condition holds; what: a kind of thing, in words."""
    if not holds:
        raise RefusalError("gate", f"the site held back {what}")
