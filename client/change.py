"""An alarm for a change: patients come one by one, and from some patient on they are others.

Legend of shapes: N patients in order, P numbers of each, R runs.
"""

from dataclasses import dataclass

import numpy as np

from common.cusum import Scores, cumulative, first_above, threshold_of

RUNS = 2000
LEAST_REFERENCE = 10
SHRINKAGE = 0.2
FLOOR = 1e-6


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

    Page's cumulative sum (common/cusum.py) of how far each patient is from the reference. The
    threshold is the one that as many patients like those of the reference pass with the false
    alarm rate: in all of them together, not in each.

    Raises:
        ValueError: fewer than ten reference patients, no new one, or no rate between 0 and 1.
    """
    if len(reference_NP) < LEAST_REFERENCE or not len(new_NP):
        raise ValueError(
            f"{len(reference_NP)} patients before and {len(new_NP)} after; a change needs "
            f"{LEAST_REFERENCE} before it at least, and one after"
        )
    known_N, new_N = scores_of(reference_NP, new_NP)
    unchanged_RN = unchanged(known_N, len(new_N), np.random.default_rng(seed))
    threshold = threshold_of(unchanged_RN, false_alarm_rate)
    sums_N = cumulative(new_N)
    return Watch(sums_N=sums_N, threshold=threshold, alarm=first_above(sums_N, threshold))


def unchanged(known_N: Scores, count: int, draws: np.random.Generator) -> Scores:
    """Return [RUNS, count] scores of patients who are like the reference.

    A smoothed bootstrap (Silverman and Young, Biometrika 1987): both sides of a run are drawn, so
    that a reference which is itself a few patients raises no alarm by its own chance, and between
    and beyond the patients that were seen there are others.

    known_N: scores of the reference, of mean 0 and standard deviation 1.
    """
    width = 1.06 * len(known_N) ** -0.2

    def drawn(patients: int) -> Scores:
        some = draws.choice(known_N, (RUNS, patients))
        noised: Scores = some + width * draws.normal(size=some.shape)
        return noised

    reference_RN, new_RN = drawn(len(known_N)), drawn(count)
    spread_R1 = np.maximum(reference_RN.std(axis=1, keepdims=True), FLOOR)
    scores_RN: Scores = (new_RN - reference_RN.mean(axis=1, keepdims=True)) / spread_R1
    return scores_RN


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
