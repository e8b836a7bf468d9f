"""How unsure an answer is, and what is gained by leaving the unsure ones to a person.

Legend of shapes: K classes, E bins of the entropy, ... the spatial axes.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Curve = NDArray[np.float64]
"""[2, E]: answers and their summed risk by the bin of the entropy. Those of two sites add up."""
ENTROPY_BINS = 512


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy of [K, ...] as a share of the largest, [...]: 0 is sure, 1 knows nothing.

    Shannon, 1948. Of the mean of several models' probabilities it is the predictive entropy
    (Lakshminarayanan et al., NeurIPS 2017).
    """
    nats = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(0)
    return nats / math.log(len(probabilities))


def unsureness(probabilities: Tensor) -> float:
    """Return one number of 0 to 1 for an answer [K], or for a segmentation [K, ...].

    Of a segmentation: the voxels' entropy together over the foreground that it expects, so that the
    sure background of a large image does not hide an unsure lesion.
    """
    each = entropy(probabilities.double())
    if each.ndim == 0:
        return float(each)
    foreground = float((1 - probabilities[0].double()).sum())
    return min(float(each.sum()) / (1.0 + foreground), 1.0)


def curve_of(unsure: float, risk: float) -> Curve:
    """Return one answer's part. unsure, risk: of 0 to 1; the risk of a right answer is 0."""
    curve = np.zeros((2, ENTROPY_BINS))
    curve[:, min(int(unsure * ENTROPY_BINS), ENTROPY_BINS - 1)] = 1.0, risk
    return curve


def risk_at(curve: Curve, coverage: float) -> float:
    """Return the mean risk of the surest answers, of which `coverage` is the share that is given.

    The coverage-risk curve of El-Yaniv and Wiener, JMLR 2010. Answers of one bin are equally sure,
    so of a bin that is cut the mean counts. nan without answers.
    """
    answers, risks = curve
    wanted = coverage * answers.sum()
    if not wanted:
        return math.nan
    before = np.cumsum(answers) - answers
    taken = np.clip(wanted - before, 0.0, answers)
    return float((risks * taken / np.maximum(answers, 1.0)).sum() / wanted)


def risks_of(curve: Curve, steps: int = 100) -> list[float]:
    """Return the risk at each of so many coverages, evenly from 1 / steps to 1."""
    return [risk_at(curve, (step + 1) / steps) for step in range(steps)]


def area_under_risk(curve: Curve, steps: int = 100) -> float:
    """Return the mean risk over all coverages (Geifman et al., ICLR 2019); less is better."""
    return float(np.mean(risks_of(curve, steps)))
