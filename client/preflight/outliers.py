"""Which of a site's images are unlike the others, by a robust z-score."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from client.preflight.facts import Facts

FURTHEST = 3.5
"""Of a robust z-score (Iglewicz and Hoaglin, 1993)."""
FEWEST = 8
"""Of fewer images nobody can say what is usual."""
_ROUNDING = 0.01
"""Spread that says nothing: 1 % of a length or a volume, a hundredth of a grey value."""
_MAD_OF_NORMAL, _MEAN_OF_NORMAL = 1.4826, 1.2533
"""Standard deviation of a normal over its median and its mean absolute deviation."""


def robust_z(values_N: NDArray[np.float64], least: float = 0.0) -> NDArray[np.float64]:
    """Return (x - median) / (1.4826 MAD) of each value; 0 where all are equal.

    least: of the spread; a smaller one is rounding.

    Where more than half are equal the MAD is 0, and the mean absolute deviation takes its place
    (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
    """
    away = values_N - np.median(values_N)
    spread = _MAD_OF_NORMAL * np.median(np.abs(away))
    if spread == 0:
        spread = _MEAN_OF_NORMAL * np.mean(np.abs(away))
    spread = max(float(spread), least)
    return np.zeros_like(away) if spread == 0 else away / spread


def outliers(facts: Sequence[Facts]) -> Iterator[tuple[str, Facts, float]]:
    """Yield each quantity and each image that is far from the others in it, with its score."""
    for name, number in _quantities(facts).items():
        known = [(one, value) for one in facts if (value := number(one)) is not None]
        if len(known) < FEWEST:
            continue
        scores = robust_z(np.array([value for _, value in known]), _ROUNDING)
        for (one, _), score in zip(known, scores, strict=True):
            if abs(score) > FURTHEST:
                yield name, one, float(score)


def _quantities(facts: Sequence[Facts]) -> dict[str, Callable[[Facts], float | None]]:
    found: dict[str, Callable[[Facts], float | None]] = {
        "middle grey value": lambda one: one.median,
        "brightest grey value": lambda one: one.high,
    }
    for axis in range(max((len(one.size) for one in facts), default=0)):
        found[f"voxels along axis {axis}"] = _along(axis, "size")
        found[f"voxel size along axis {axis}"] = _along(axis, "spacing_mm")
    for label in sorted({label for one in facts for label in one.labels}):
        found[f"volume of label {label}"] = _volume(label)
    return found


def _along(axis: int, name: str) -> Callable[[Facts], float | None]:
    def value(one: Facts) -> float | None:
        numbers = getattr(one, name)
        # Lengths differ by factors: half as long is as far as twice as long.
        return math.log(numbers[axis]) if axis < len(numbers) else None

    return value


def _volume(label: int) -> Callable[[Facts], float | None]:
    return lambda one: math.log(one.labels[label]) if label in one.labels else None
