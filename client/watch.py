"""Whether a site's new patients still look like those that a study began with.

A replaced scanner, or another protocol on the old one, shows in how images look long before anybody
has outlines to try the model on. Nothing of it leaves the site.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from client.change import Watch, watched
from client.cohort import Cohort, load_cohort
from client.manifest import Row
from client.profile import looks_of
from common.seeding import seed
from common.study import Study
from common.tasks.config import UnlabelledConfig

COLUMN = "date"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The new patients in the order in which they came."""

    patients: list[str]
    dates: list[date]
    before: int
    """Patients of the reference."""
    watch: Watch


def watch_site(rows: Sequence[Row], study: Study, since: date, false_alarm_rate: float) -> Watched:
    """Hold the patients from a day on against those before it, as a study prepares images.

    Raises:
        ValueError: a patient has no date that can be read, or there are too few on one side.
    """
    days = dates_of(rows)
    cohort = _seen(rows, study)
    looks = looks_of([cohort.train, cohort.choosing], study)
    order = sorted(looks, key=lambda patient: (days[patient], patient))
    old, new = ([p for p in order if (days[p] >= since) == later] for later in (False, True))
    width = len(next(iter(looks.values())))
    known, seen = (np.array([looks[p] for p in part]).reshape(-1, width) for part in (old, new))
    watch = watched(known, seen, false_alarm_rate, seed(study.seed, "watch"))
    return Watched(patients=new, dates=[days[p] for p in new], before=len(old), watch=watch)


def _seen(rows: Sequence[Row], study: Study) -> Cohort:
    """Return all patients: how an image looks asks for no label, which new ones rarely have."""
    task = study.task
    if task.guessable:
        task = replace(task, unlabelled=UnlabelledConfig())
    # Only with a label can a patient be held out.
    data = replace(study.data, held_out=0.0, train_share=None)
    all_alike = [replace(row, split=None) for row in rows]
    return load_cohort(all_alike, data, task, seed(study.seed, "split"))


def dates_of(rows: Sequence[Row]) -> dict[str, date]:
    """Return the day of each patient's first image.

    Raises:
        ValueError: a row has no date, or none that can be read.
    """
    found: dict[str, date] = {}
    for row in rows:
        text = row.covariates.get(COLUMN)
        if text is None:
            raise ValueError(
                f"the manifest has no column {COLUMN}, or an empty cell for {row.image}; give it "
                "the day of each image, as 2026-03-31"
            )
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise ValueError(
                f"{row.image}: its {COLUMN} {text!r} in the manifest is no day; give the day of "
                "the image, as 2026-03-31"
            ) from error
        found[row.patient] = min(day, found.get(row.patient, day))
    return found
