"""The score from which a class or a label is the answer, as some of a site's patients choose it.

Legend of shapes: K labels, L score bins.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.checks import in_range
from common.tasks.ranking import mean_of_defined
from common.tasks.task import Metric


def check_share(share: float | None) -> None:
    """Raise ValueError unless the share of those who choose leaves some of both."""
    if share is None:
        return
    in_range(0.0, 1.0, **{"task.threshold_share": share})
    if share in (0.0, 1.0):
        raise ValueError(
            f"task.threshold_share={share:g} leaves nobody to {'train on' if share else 'choose'}; "
            "give a share between, as 0.2"
        )


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


def label_decisions(labels: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of what a threshold a label decides, by name."""
    share = {"sensitivity": "with it found", "specificity": "without it spared"}
    return {
        **{
            name: Metric(True, "", f"{one.meaning[:-1]}, mean over the labels.")
            for name, one in decisions().items()
        },
        **{
            f"{name}_{label}": Metric(
                True, "", f"share of images {share[name]} at the site's threshold of the label."
            )
            for name in share
            for label in labels
        },
    }


def decided_labels(confusions: NDArray[np.float64], labels: Sequence[str]) -> dict[str, float]:
    """Return sensitivity and specificity of each label, and their means over the labels with one.

    confusions: [K, 2, 2], images by label, truth and answer.
    """
    each = [decided(confusion) for confusion in confusions]
    values = {name: mean_of_defined([of[name] for of in each]) for name in decisions()}
    for label, of in zip(labels, each, strict=True):
        values |= {f"{name}_{label}": value for name, value in of.items()}
    return values
