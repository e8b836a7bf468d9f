"""How well a deployed model does on patients who came after it, beside those it was tried on.

Nothing of it leaves the site.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import torch

from client.cohort import BadCohortError, Samples, load_cohort
from client.evaluation import bootstrap, bootstrap_change, chosen_by, patient_rows, predict
from client.manifest import Row
from client.privacy.gate import CALIBRATION
from client.watch import dates_of
from common.contract import Estimate
from common.finished import Finished
from common.seeding import seed
from common.tasks.task import Metric, Sums

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One metric of the model."""

    name: str
    before: Estimate
    """On the held-out patients from before the day."""
    after: Estimate
    """On the labelled patients from it on."""
    change: Estimate
    """After minus before; of other patients, so the interval is not paired."""
    worse: bool
    """Whether the whole interval of the change lies on the bad side of 0."""


def figures_since(rows: Sequence[Row], finished: Finished, since: date) -> list[Figure]:
    """Return the headline metric and, where the task has one, the calibration error.

    Empty where no patient from the day on has a label. Before it the held-out patients are those
    whom the study held out.

    Raises:
        ValueError: a patient has no date that can be read, or nobody is held out before the day.
    """
    days, study = dates_of(rows), finished.study
    old, new = ([r for r in rows if (days[r.patient] >= since) == later] for later in (False, True))
    known = load_cohort(old, study.data, study.task, seed(study.seed, "split"))
    newer = _labelled(new, finished)
    if newer is None:
        return []
    if not known.held_out.num_patients:
        raise ValueError(
            f"no patient before {since} is held out, so there is nothing to hold the new ones "
            "against; give a later day"
        )
    network, choosing = finished.network, known.choosing
    task = chosen_by(
        lambda: predict(network, choosing, finished.task, CPU), choosing, finished.task
    )

    def sums_of(samples: Samples) -> list[Sums]:
        return list(patient_rows(predict(network, samples, task, CPU), samples, task).values())

    before, after = sums_of(known.held_out), sums_of(newer)
    at = [seed(study.seed, "deployed", side) for side in ("before", "after")]
    told = [bootstrap(side, task, s) for side, s in zip((before, after), at, strict=True)]
    change = bootstrap_change(after, before, task, seed(study.seed, "deployed"))
    names = dict.fromkeys((study.task.headline, CALIBRATION))
    return [
        _figure(name, told[0], told[1], change, task.metrics)
        for name in names
        if name in task.metrics
    ]


def _labelled(rows: Sequence[Row], finished: Finished) -> Samples | None:
    """Return the samples of all patients who have a label; None where nobody has."""
    study = finished.study
    # The study's split says nothing of who came later: all are new to the model.
    rows = [replace(row, split=None) for row in rows]
    data = replace(study.data, held_out=1.0, on_bad_file="skip")
    try:
        held_out = load_cohort(rows, data, study.task, seed(study.seed, "split")).held_out
    except BadCohortError:
        return None
    return held_out if held_out.num_patients else None


def _figure(
    name: str,
    before: Mapping[str, Estimate],
    after: Mapping[str, Estimate],
    change: Mapping[str, Estimate],
    metrics: Mapping[str, Metric],
) -> Figure:
    low, high = change[name].low, change[name].high
    worse = high is not None and high < 0
    if not metrics[name].higher_is_better:
        worse = low is not None and low > 0
    return Figure(
        name=name, before=before[name], after=after[name], change=change[name], worse=worse
    )
