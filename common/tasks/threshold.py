"""The score from which a classification into two classes answers with the second of them.

Legend of shapes: L score bins.
"""

import math

import numpy as np
from numpy.typing import NDArray

from common.tasks.task import Metric


def best_bin(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> int | None:
    """Return the bin from which calling images positive gives the largest Youden index.

    Both [L], images by score bin. The index is sensitivity + specificity - 1 (Youden, Cancer 1950).
    Of bins that are as good the middle one is chosen, as far as can be from both classes. None
    without positives or without negatives.
    """
    if not negatives.sum() or not positives.sum():
        return None
    found = 1 - (np.cumsum(positives) - positives) / positives.sum()
    spared = (np.cumsum(negatives) - negatives) / negatives.sum()
    index = found + spared
    best = np.flatnonzero(index >= index.max() - 1e-12)
    return int(best[len(best) // 2])


def decisions() -> dict[str, Metric]:
    """Return the metrics of what a threshold decides, by name."""
    return {
        "sensitivity": Metric(True, "", "share of positives found at the site's threshold."),
        "specificity": Metric(True, "", "share of negatives spared at the site's threshold."),
    }


def decided(confusion: NDArray[np.float64]) -> dict[str, float]:
    """Return sensitivity and specificity; nan of a class that is not there.

    confusion: [2, 2], images by truth and answer.
    """
    images = confusion.sum(axis=1)
    negative, positive = (
        float(confusion[truth, truth] / images[truth]) if images[truth] else math.nan
        for truth in (0, 1)
    )
    return {"sensitivity": positive, "specificity": negative}
