"""Clinical covariates of a patient as numbers, by ranges that a study states. It loads no torch.

No site measures its own patients to standardise them: a mean over a few patients would leave with
the model, and each site's zero would be another.
"""

import math
from collections.abc import Mapping, Sequence

Covariates = Mapping[str, Sequence[object]]
"""By column of the manifests: two numbers, the ends of a range, or the words that may stand."""


def check_covariates(asked: Covariates, places: int) -> None:
    """Raise ValueError unless each covariate has a range or words, and all fit into an image.

    places: voxels of a sample, of which one more channel holds the numbers.
    """
    for column, values in asked.items():
        words = all(isinstance(value, str) for value in values)
        if _is_range(values):
            low, high = (float(str(value)) for value in values)
            good = low < high and math.isfinite(high - low)
        else:
            good = words and len(values) == len(set(values)) >= 2
        if not good:
            raise ValueError(
                f"data.covariates.{column}={list(values)} is neither a range nor a choice; give "
                "two numbers, the lower first, or two or more different words of the manifests"
            )
    if not asked or width_of(asked) > places:
        raise ValueError(
            f"data.covariates has {len(asked)} columns for images of {places} voxels; name one or "
            "more, as {age: [18, 95], sex: [F, M]}, or leave it null"
        )


def width_of(asked: Covariates) -> int:
    """Return how many numbers a patient's covariates are."""
    return sum(1 + (1 if _is_range(values) else len(values)) for values in asked.values())


def encoded(cells: Mapping[str, str], asked: Covariates) -> list[float]:
    """Return a patient's covariates: of each whether it is unknown, and then what it is.

    A number in its range becomes -1 to 1 and is cut there; of words the one that stands is 1. One
    that is unknown is 1 and then zeros, so that a network learns what "unknown" means.

    Raises:
        ValueError: a cell that is no number, or a word that the study does not list.
    """
    found: list[float] = []
    for column, values in asked.items():
        cell = cells.get(column)
        if _is_range(values):
            found += [1.0, 0.0] if cell is None else [0.0, _in_range(column, cell, values)]
            continue
        if cell is not None and cell not in values:
            raise ValueError(f"{column}={cell!r} is none of {', '.join(map(str, values))}")
        found += [float(cell is None), *(float(cell == value) for value in values)]
    return found


def _is_range(values: Sequence[object]) -> bool:
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    return len(values) == 2 and all(numbers)


def _in_range(column: str, cell: str, values: Sequence[object]) -> float:
    low, high = (float(str(value)) for value in values)
    try:
        number = float(cell)
    except ValueError as error:
        raise ValueError(f"{column}={cell!r} is no number") from error
    # Not a number stays the last of both, so it would pass a cut.
    if number != number:
        raise ValueError(f"{column}={cell!r} is no number")
    return min(max((2 * number - low - high) / (high - low), -1.0), 1.0)
