"""Metrics of subgroups of a site's held-out patients, none of too few of them.

How many patients a subgroup has is not public, other than how many there are in all. So where
noise covers the metrics, the subgroups' sizes are noised with them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from client.evaluation import bootstrap
from client.privacy.statistics import noised
from common.contract import Estimate
from common.subgroups import Subgroups, group_of, groups_of
from common.tasks.task import Sums, Task

Members = Mapping[str, Mapping[str, list[str]]]
"""By covariate and group: the patients."""
Told = dict[str, dict[str, Estimate]]
SIZE = "subgroup_size"


def members_of(
    patients: Sequence[str], covariates: Mapping[str, Mapping[str, str]], subgroups: Subgroups
) -> Members:
    """Return who is in which group; a patient whose manifest does not say is in none."""
    found: dict[str, dict[str, list[str]]] = {}
    for covariate, values in subgroups.items():
        groups: dict[str, list[str]] = {name: [] for name in groups_of({covariate: values})}
        for patient in patients:
            name = group_of(covariate, values, covariates.get(patient, {}).get(covariate))
            if name is not None:
                groups[name].append(patient)
        found[covariate] = groups
    return found


def exact_subgroups(
    rows: Mapping[str, Sums], members: Members, task: Task, seed: int, least: int
) -> Told:
    """Return each group's metrics with bootstrap intervals, by group.

    rows: by patient. A group of fewer than `least` patients is not told of. That protects nobody:
    exact figures of groups that overlap can be subtracted from each other, so a policy that asks
    for more than one patient does not let exact subgroups leave (client/privacy/policy.py).
    """
    told: Told = {}
    for groups in members.values():
        for name in _tellable({g: len(p) for g, p in groups.items()}, least):
            told[name] = bootstrap([rows[patient] for patient in groups[name]], task, seed)
    return told


def noised_subgroups(
    rows: Mapping[str, Sums],
    members: Members,
    task: Task,
    multiplier: float,
    noise: torch.Generator,
    least: int,
) -> Told:
    """Return each group's metrics from sums and sizes with noise, all charged as one release.

    A patient adds a bounded row and 1 to one group of each covariate. Another patient in the same
    place takes these away and adds others, perhaps to another group, so the vector of all groups
    moves by sqrt(2 K (s^2 + 1)) at most, for K covariates and rows of length s at most. It costs
    common.accounting.gaussian_release(multiplier), which is to be charged before.
    """
    length = task.bounded.sensitivity
    std = multiplier * math.sqrt(2 * max(len(members), 1) * (length**2 + 1))
    bounded = {patient: task.bounded.row(row) for patient, row in rows.items()}
    nothing = {name: np.zeros_like(values) for name, values in next(iter(bounded.values())).items()}
    told: Told = {}
    for groups in members.values():
        totals = {}
        for name, patients in groups.items():
            sums = {n: sum((bounded[p][n] for p in patients), zero) for n, zero in nothing.items()}
            totals[name] = noised({**sums, SIZE: np.array(float(len(patients)))}, std, noise)
        sizes = {name: max(round(float(total[SIZE])), 0) for name, total in totals.items()}
        for name in _tellable(sizes, least):
            count = min(sizes[name], len(rows))
            total = {n: values for n, values in totals[name].items() if n != SIZE}
            scored = task.score(task.bounded.restore(total, count))
            told[name] = {
                metric: replace(_none(count), value=value if np.isfinite(value) else None)
                for metric, value in scored.items()
            }
    return told


def _none(count: int) -> Estimate:
    return Estimate(value=None, low=None, high=None, n=count)


def _tellable(sizes: Mapping[str, int], least: int) -> list[str]:
    """Return the groups that may be told of, in their order."""
    return [name for name, size in sizes.items() if size >= max(least, 1)]
