"""Numbers over the rounds, kept compactly, and fewer of them that look the same when drawn."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

Points = list[tuple[int, float]]


class Series:
    """A number after each of some rounds; a round that is told again counts as it was told last."""

    def __init__(self) -> None:
        self._rounds = array("l")
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._rounds)

    def put(self, round_: int, value: float) -> None:
        """Keep a number."""
        if self._rounds and round_ <= self._rounds[-1]:
            place = bisect_left(self._rounds, round_)
            if self._rounds[place] == round_:
                self._values[place] = value
            else:
                self._rounds.insert(place, round_)
                self._values.insert(place, value)
            return
        self._rounds.append(round_)
        self._values.append(value)

    @property
    def last(self) -> float | None:
        """The number of the latest round; None before the first."""
        return self._values[-1] if self._values else None

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self._values)

    def points(self, most: int) -> Points:
        """Return the series as at most so many points (thinned)."""
        return thinned(self._rounds, self._values, most)


def thinned(rounds: Sequence[int], values: Sequence[float], most: int) -> Points:
    """Return at most `most` of the points: the first, the last, and the ends of each stretch.

    The rounds are cut into equal stretches, of each of which the least and the greatest value
    stay: a line through them covers what a line through all would, to the width of a stretch. All
    points stay where there are no more than `most`, which is 4 at least.
    """
    count = len(rounds)
    if count <= most:
        return list(zip(rounds, values, strict=True))
    size = -(-count // ((most - 2) // 2))
    # The last stretch is filled up with the last value.
    stretches = np.pad(np.asarray(values), (0, -count % size), mode="edge").reshape(-1, size)
    begins = np.arange(len(stretches)) * size
    ends = np.concatenate([begins + stretches.argmin(1), begins + stretches.argmax(1)])
    kept = np.unique(np.concatenate([[0, count - 1], np.minimum(ends, count - 1)]))
    return [(rounds[place], values[place]) for place in kept.tolist()]
