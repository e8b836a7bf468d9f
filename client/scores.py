"""A model's metrics at a site, as they may be told: exact with intervals, or from noised sums."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from client.cohort import Samples
from client.evaluation import bootstrap, bootstrap_gain, patient_rows
from client.privacy.statistics import noised_estimates, told_apart
from common.contract import Estimate
from common.tasks.task import Sums, Task


@dataclass(frozen=True)
class Scores:
    """Empty where too few patients are held out to tell anything."""

    estimates: dict[str, Estimate] = field(default_factory=dict)
    rows: Sequence[Sums] = ()
    """Each patient's sums, in one order for all models; none where the metrics are noised."""


def exact_scores(probabilities: Tensor, samples: Samples, task: Task, seed: int) -> Scores:
    """Return the metrics with bootstrap intervals by patient."""
    rows = list(patient_rows(probabilities, samples, task).values())
    return Scores(bootstrap(rows, task, seed), rows)


def noised_scores(
    probabilities: Tensor, samples: Samples, task: Task, multiplier: float, noise: torch.Generator
) -> Scores:
    """Return the metrics of noised sums; they are to be charged before."""
    rows = list(patient_rows(told_apart(probabilities, task), samples, task).values())
    return Scores(noised_estimates(rows, task, multiplier, noise))


def gain_of(ours: Scores, other: Scores, task: Task, seed: int) -> dict[str, Estimate]:
    """Return our metrics minus the other model's; of noised ones without an interval."""
    if ours.rows and other.rows:
        return bootstrap_gain(ours.rows, other.rows, task, seed)
    return {name: _difference(e, other.estimates[name]) for name, e in ours.estimates.items()}


def _difference(ours: Estimate, other: Estimate) -> Estimate:
    both = ours.value is not None and other.value is not None
    value = ours.value - other.value if both else None  # type: ignore[operator]
    return Estimate(value=value, low=None, high=None, n=ours.n)
