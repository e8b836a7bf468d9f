"""Subgroups of patients that a study names, by covariates of the sites' manifests."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

Subgroups = Mapping[str, Sequence[str]]
"""By covariate: its values (sex: [F, M]), or numbers between bands (age: [40, 65])."""
MOST = 32
"""Groups of a study: each is told of fewer patients, and noise covers them all together."""


def groups_of(subgroups: Subgroups) -> list[str]:
    """Return the names of all groups: sex=F, age<40, age=40-65, age>=65."""
    return [name for covariate, values in subgroups.items() for name in _names(covariate, values)]


def group_of(covariate: str, values: Sequence[str], told: str | None) -> str | None:
    """Return the group of a patient whose manifest says `told`; None if it is in none."""
    edges = edges_of(values)
    if told is None:
        return None
    if edges is None:
        return f"{covariate}={told}" if told in values else None
    try:
        number = float(told)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return _names(covariate, values)[sum(number >= edge for edge in edges)]


def edges_of(values: Sequence[str]) -> list[float] | None:
    """Return the numbers between bands; None where the values are words."""
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def check_subgroups(subgroups: Subgroups) -> None:
    """Raise ValueError where subgroups cannot be told apart."""
    for covariate, values in subgroups.items():
        edges = edges_of(values)
        rising = edges is None or all(low < high for low, high in pairwise([*edges, math.inf]))
        if not covariate.isidentifier() or not values or len(set(values)) < len(values):
            raise ValueError(
                f"evaluation.subgroups.{covariate}={list(values)} names no groups; give a column "
                "of the manifests, and its values or the numbers between its bands, each once"
            )
        if not rising or any(not value.isprintable() or len(value) > MOST for value in values):
            raise ValueError(
                f"evaluation.subgroups.{covariate}={list(values)} has bands out of order, or a "
                "value that is no short word; give rising numbers, or the words of the manifests"
            )
    if len(groups_of(subgroups)) > MOST:
        raise ValueError(
            f"evaluation.subgroups names {len(groups_of(subgroups))} groups; {MOST} at most"
        )


def _names(covariate: str, values: Sequence[str]) -> list[str]:
    if edges_of(values) is None:
        return [f"{covariate}={value}" for value in values]
    bands = [f"{covariate}={low}-{high}" for low, high in pairwise(values)]
    return [f"{covariate}<{values[0]}", *bands, f"{covariate}>={values[-1]}"]
