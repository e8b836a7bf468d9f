"""Page's cumulative sum: evidence of a change piles up, and without one it falls back to 0.

Legend of shapes: R runs, N scores in order.
"""

import numpy as np
from numpy.typing import NDArray

SLACK = 0.5
"""Of a score, in standard deviations: half of the shift that is to be found soonest."""
Scores = NDArray[np.float64]


def cumulative(scores_N: Scores) -> Scores:
    """Return S_t = max(0, S_t-1 + z_t - SLACK) of the scores z (Page, Biometrika 1954).

    scores_N: [..., N], along the last axis; the sums have the same shape.
    """
    steps = np.cumsum(scores_N - SLACK, axis=-1)
    sums_N: Scores = steps - np.minimum(np.minimum.accumulate(steps, axis=-1), 0.0)
    return sums_N


def threshold_of(unchanged_RN: Scores, false_alarm_rate: float) -> float:
    """Return what the sum of at most that share of the runs without a change passes anywhere.

    Raises:
        ValueError: no rate between 0 and 1.
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate={false_alarm_rate} is not a chance; give one below 1")
    highest_R = cumulative(unchanged_RN).max(axis=-1)
    return float(np.quantile(highest_R, 1 - false_alarm_rate, method="higher"))


def first_above(sums_N: Scores, threshold: float) -> int | None:
    """Return the first place, from 0, whose sum is above the threshold; None where none is."""
    above = np.flatnonzero(sums_N > threshold)
    return int(above[0]) if len(above) else None
