"""What tasks with an answer an image have in common: scores in bins, and what follows from them.

Legend of shapes: K classes, L score bins, M bins of the confidence.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.tasks.task import Sums

SCORE_BINS = 2048
"""Bins of a score's histogram, 0.012 wide: scores closer than that count as equal."""
SCORE_LIMIT = 12.0
"""Scores are clipped to +-12, the logits of 6e-6 and 1 - 6e-6."""
NOISED_EDGES = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
"""Logits between the 8 bins of a histogram that noise covers. Every bin gets its own noise, so more
bins would lose more to noise than they keep of the ranking."""
CALIBRATION_BINS = 15
"""Equal bins of the confidence (Guo et al., ICML 2017)."""


def score_bin(probabilities: NDArray[np.float64], ranked: int) -> int:
    """Return the bin of the logit of one class's probability, clipped to +-SCORE_LIMIT.

    The logit is taken against the other classes' probabilities [K], which keep their digits where
    the class's own is rounded to 1.
    """
    with np.errstate(divide="ignore"):
        others = np.delete(probabilities, ranked).sum()
        logit = np.log(probabilities[ranked]) - np.log(others)
    share = (float(np.clip(logit, -SCORE_LIMIT, SCORE_LIMIT)) + SCORE_LIMIT) / (2 * SCORE_LIMIT)
    return min(int(share * SCORE_BINS), SCORE_BINS - 1)


def confidence_bin(confidence: float) -> int:
    """Return the m - 1 with (m - 1)/M < confidence <= m/M (Guo et al., ICML 2017, Sec. 2)."""
    return min(max(math.ceil(confidence * CALIBRATION_BINS), 1), CALIBRATION_BINS) - 1


def patient_sums(records: Sequence[Sums]) -> Sums:
    """Return the sums of one patient: each of the patient's images counts.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("a patient without images cannot be scored; leave the patient out")
    return {key: np.sum([record[key] for record in records], axis=0) for key in records[0]}


def in_wide_bins(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return histograms [..., L] in the 8 wide bins that noise can cover."""
    places = (np.array(NOISED_EDGES) + SCORE_LIMIT) / (2 * SCORE_LIMIT) * SCORE_BINS
    starts = [0, *places.astype(int).tolist()]
    wide: NDArray[np.float64] = np.add.reduceat(scores, starts, axis=-1)
    return wide


def area_under_roc(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> float:
    """Return the chance that a positive's score is above a negative's, a tie counting half.

    Both [L], images by score bin. Hanley and McNeil, Radiology 1982: the Mann-Whitney statistic.
    It differs from that of the scores themselves by at most half the share of pairs of a positive
    and a negative that fall into one bin. nan without positives or without negatives.
    """
    pairs = negatives.sum() * positives.sum()
    if not pairs:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def sensitivity(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> float:
    """Return the largest share of positives called by a threshold that calls <= 5 % of negatives.

    Both [L], images by score bin; thresholds are the bins' edges, without interpolation between
    them. nan without positives or without negatives.
    """
    if not negatives.sum() or not positives.sum():
        return math.nan
    called_negatives = np.cumsum(negatives[::-1])
    called_positives = np.cumsum(positives[::-1])
    # In whole images: 0.05 times a count is not exact.
    allowed = called_negatives * 20 <= negatives.sum()
    return float(called_positives[allowed].max(initial=0.0) / positives.sum())


def balanced_accuracy(confusion: NDArray[np.float64]) -> float:
    """Return the mean over the classes present of the share of their images answered rightly.

    confusion: [K, K], images by truth and answer. nan with fewer than two classes present: an
    answer that is always the same would be perfect there.
    """
    images = confusion.sum(axis=1)
    present = images > 0
    if present.sum() < 2:
        return math.nan
    return float(np.mean(np.diag(confusion)[present] / images[present]))


def mean_of_defined(values: Sequence[float]) -> float:
    """Return the mean of those that are not nan; nan of none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def expected_calibration_error(calibration: NDArray[np.float64]) -> float:
    """Return the mean over images of |accuracy - confidence| of their bin.

    calibration: [3, M], images, right answers and summed confidence. Naeini et al., AAAI 2015; Guo
    et al., ICML 2017, Eq. 3. nan without images.
    """
    images, right, confidence = calibration
    total = images.sum()
    return float(np.abs(right - confidence).sum() / total) if total else math.nan


def shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return counts as shares that add up to 1, whatever they hold; of none, zeros."""
    kept = np.maximum(np.nan_to_num(counts), 0.0)
    total = kept.sum()
    return kept / total if total else kept


def nearest_counts(noised: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Return the counts, not negative and `total` together, that are nearest to noised ones.

    A projection (Duchi et al., ICML 2008, Fig. 1). Clipping alone would add half the noise of every
    empty bin as patients.
    """
    ranked = np.sort(noised, axis=None)[::-1]
    excess = (np.cumsum(ranked) - total) / np.arange(1, ranked.size + 1)
    nearest: NDArray[np.float64] = noised - excess[np.flatnonzero(ranked > excess)[-1]]
    return np.maximum(nearest, 0.0)
