"""An alarm for a change: patients come one by one, and from some patient on they are others.

Legend of shapes: N patients in order, P numbers of each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLACK = 0.5
"""Of a patient's score, in standard deviations: half of the shift that is to be found soonest."""
RUNS = 2000
LEAST_REFERENCE = 10
SHRINKAGE = 0.2
FLOOR = 1e-6
Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What was seen of new patients."""

    sums_N: Scores
    """The sum after each of them."""
    threshold: float
    """An alarm is a sum above it."""
    alarm: int | None
    """The first patient, from 0, with an alarm."""


def watched(reference_NP: Scores, new_NP: Scores, false_alarm_rate: float, seed: int) -> Watch:
    """Return whether new patients look unlike those of the reference, and from which one on.

    Page's cumulative sum, S_t = max(0, S_t-1 + z_t - SLACK) (Page, Biometrika 1954), of how far
    each patient is from the reference. The threshold is the one that as many patients drawn from
    the reference pass with the false alarm rate: in all of them together, not in each.

    Raises:
        ValueError: fewer than ten reference patients, no new one, or no rate between 0 and 1.
    """
    if len(reference_NP) < LEAST_REFERENCE or not len(new_NP):
        raise ValueError(
            f"{len(reference_NP)} patients before and {len(new_NP)} after; a change needs "
            f"{LEAST_REFERENCE} before it at least, and one after"
        )
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate={false_alarm_rate} is not a chance; give one below 1")
    known_N, new_N = scores_of(reference_NP, new_NP)
    draws = np.random.default_rng(seed)
    runs = draws.choice(known_N, (RUNS, len(new_N)))
    highest = np.array([cumulative(run).max() for run in runs])
    threshold = float(np.quantile(highest, 1 - false_alarm_rate, method="higher"))
    sums_N = cumulative(new_N)
    above = np.flatnonzero(sums_N > threshold)
    return Watch(sums_N=sums_N, threshold=threshold, alarm=int(above[0]) if len(above) else None)


def cumulative(scores_N: Scores) -> Scores:
    """Return S_t = max(0, S_t-1 + z_t - SLACK) of the scores z."""
    steps = np.cumsum(scores_N - SLACK)
    sums_N: Scores = steps - np.minimum(np.minimum.accumulate(steps), 0.0)
    return sums_N


def scores_of(reference_NP: Scores, new_NP: Scores) -> tuple[Scores, Scores]:
    """Return how far each patient is from the reference, in its standard deviations.

    A patient of the reference is held against the others of it, as a new one is against all.
    """
    without = [
        Reference.of(np.delete(reference_NP, i, axis=0)).far(one)
        for i, one in enumerate(reference_NP)
    ]
    whole = Reference.of(reference_NP)
    known_N, new_N = np.log(without), np.log([whole.far(one) for one in new_NP])
    spread = max(float(known_N.std()), FLOOR)
    return (known_N - known_N.mean()) / spread, (new_N - known_N.mean()) / spread


@dataclass(frozen=True)
class Reference:
    """What patients look like: mean, spread, and how their numbers go together."""

    mean_P: Scores
    spread_P: Scores
    inverse_PP: Scores

    @classmethod
    def of(cls, patients_NP: Scores) -> "Reference":
        """Return that of so many patients; their correlations are drawn towards none.

        (1 - SHRINKAGE) R + SHRINKAGE I (Friedman, JASA 1989, Section 3): there are more numbers
        than patients, and in directions that hardly vary a change shows best.
        """
        mean_P, spread_P = patients_NP.mean(0), patients_NP.std(0)
        # Numbers that hardly move in the reference would else decide alone.
        spread_P = spread_P + max(float(spread_P.mean()) / 10, FLOOR)
        scaled = (patients_NP - mean_P) / spread_P
        correlation_PP = scaled.T @ scaled / len(scaled)
        shrunk = (1 - SHRINKAGE) * correlation_PP + SHRINKAGE * np.eye(len(mean_P))
        return cls(mean_P, spread_P, np.linalg.inv(shrunk))

    def far(self, one_P: Scores) -> float:
        """Return the squared Mahalanobis distance of a patient, a number."""
        scaled = (one_P - self.mean_P) / self.spread_P
        return max(float(scaled @ self.inverse_PP @ scaled) / len(scaled), FLOOR)
