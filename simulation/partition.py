"""Real data into hospitals: by a site column, by label skew, by size skew, equally.

What is dealt is always the patient with all of their images, never an image.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import seeding
from common.files import write_atomic
from common.tasks.multilabel import SEPARATOR
from simulation.partition_config import PartitionConfig
from simulation.patients import TEST, TRAIN, Patient, listed, manifest_of, read_patients

__all__ = ["PartitionConfig", "partition"]


def partition(root: Path, config: PartitionConfig, seed: int, folder: Path) -> dict[str, Path]:
    """Write one manifest a hospital and return them by hospital, the one of most patients first.

    folder/<hospital>/manifest.csv has the columns image (absolute path), mask, label, patient and
    split as far as they are known, then all others; one of those that has a name of the first five
    is called original_<name>. The same seed gives the same files, whatever the order of the rows.

    by=dirichlet cuts every label's patients by its own proportions p ~ Dirichlet(alpha) over the
    hospitals (Yurochkin et al., ICML 2019, Sec. 4; Hsu et al., arXiv:1909.06335, 2019, draw a
    hospital's proportions over the labels instead). A patient with images of several labels counts
    under the first image's, in the order of paths; one image's several labels (A|B) count as the
    first of them in the alphabet. by=quantity cuts all patients by one such p.

    Raises:
        ValueError: the manifest, a column or a value is missing, a patient would be at two
            hospitals or on two sides, or a hospital is too small.
    """
    patients = read_patients(root, config)
    if config.by == "column":
        hospitals = _by_column(patients, config)
        _check_size(hospitals, config, seed)
    else:
        hospitals = _by_share(patients, config, seed)
    hospitals = _with_sides(hospitals, config)
    largest_first = sorted(hospitals, key=lambda site: -len(hospitals[site]))
    manifests = {}
    for site in largest_first:
        manifests[site] = folder / site / "manifest.csv"
        write_atomic(manifests[site], manifest_of(hospitals[site], root, config).encode())
    return manifests


def _by_column(patients: Sequence[Patient], config: PartitionConfig) -> dict[str, list[Patient]]:
    hospitals: dict[str, list[Patient]] = {}
    spelled: dict[str, str] = {}
    for patient in patients:
        sites = sorted({_site_of(row, config) for row in patient.rows})
        if len(sites) > 1:
            raise ValueError(
                f"patient {patient.name!r} has images at {len(sites)} hospitals, "
                f"{', '.join(sites)}; make partition.patient_pattern tell the people of "
                f"{sites[0]} and {sites[1]} apart, or choose other columns"
            )
        raw = sites[0]
        site = re.sub(r"[^\w.-]+", "-", raw).strip("-.")
        if spelled.setdefault(site, raw) != raw or not site:
            raise ValueError(
                f"hospitals {raw!r} and {spelled[site]!r} would both be named {site!r} (letters, "
                "digits, '.', '_' and '-' are kept); rename one in the manifest"
            )
        hospitals.setdefault(site, []).append(patient)
    return dict(sorted(hospitals.items()))


def _site_of(row: Mapping[str, str], config: PartitionConfig) -> str:
    named = [row[column] for column in config.columns if row[column]]
    if not named:
        columns = ", ".join(config.columns)
        raise ValueError(
            f"column {columns} names no hospital for {row[config.image_column]}; fill the "
            "cell, or leave the row out with partition.where"
        )
    return "-".join(named)


def _by_share(
    patients: Sequence[Patient], config: PartitionConfig, seed: int
) -> dict[str, list[Patient]]:
    random = np.random.default_rng(seeding.seed(seed, "partition", config.by))
    set_aside: list[Patient] = []
    if config.held_out == "shared":
        set_aside = _stratified(patients, config, seed)
        taken = {patient.name for patient in set_aside}
        patients = [replace(p, side=TRAIN) for p in patients if p.name not in taken]
    groups = _labelled(patients, config) if config.by == "dirichlet" else {"": list(patients)}
    names = [f"hospital-{number + 1}" for number in range(config.sites)]
    hospitals: dict[str, list[Patient]] = {name: [] for name in names}
    for group in groups.values():
        if config.by == "equal":
            shares = np.full(config.sites, 1 / config.sites)
        else:
            shares = random.dirichlet(np.full(config.sites, config.alpha))
        for name, dealt in zip(names, _cut(group, shares, random), strict=True):
            hospitals[name] += dealt
    _check_size(hospitals, config, seed)
    for index, patient in enumerate(set_aside):
        hospitals[names[index % config.sites]].append(replace(patient, side=TEST))
    return hospitals


def _labelled(patients: Sequence[Patient], config: PartitionConfig) -> dict[str, list[Patient]]:
    groups = _by_label(patients)
    if "" in groups:
        raise ValueError(
            f"patient {groups[''][0].name!r} has no label in column {config.label_column!r}, which "
            "partition.by=dirichlet deals by; fill the cell, or choose by=quantity"
        )
    return groups


def _by_label(patients: Iterable[Patient]) -> dict[str, list[Patient]]:
    groups: dict[str, list[Patient]] = {}
    for patient in patients:
        # In alphabetical order, so that A|B and B|A are one.
        groups.setdefault(min(patient.label.split(SEPARATOR)), []).append(patient)
    return dict(sorted(groups.items()))


def _cut(
    patients: Sequence[Patient], shares: NDArray[np.float64], random: np.random.Generator
) -> list[list[Patient]]:
    """Return the shuffled patients in consecutive pieces whose sizes follow the shares."""
    order = random.permutation(len(patients))
    ends = np.rint(np.cumsum(shares)[:-1] * len(patients)).astype(int)
    return [[patients[index] for index in piece] for piece in np.split(order, ends)]


def _stratified(patients: Sequence[Patient], config: PartitionConfig, seed: int) -> list[Patient]:
    """Return shared_fraction of each label's patients, at least one of a label that has two."""
    random = np.random.default_rng(seeding.seed(seed, "partition", "held_out"))
    chosen: list[Patient] = []
    for group in _by_label(patients).values():
        count = max(round(config.shared_fraction * len(group)), int(len(group) > 1))
        chosen += [group[index] for index in random.permutation(len(group))[:count]]
    if len(chosen) < config.sites:
        raise ValueError(
            f"partition.shared_fraction={config.shared_fraction} sets {len(chosen)} patients "
            f"aside, fewer than partition.sites={config.sites}, so a hospital would have none to "
            "test; raise the fraction or lower the sites"
        )
    return chosen


def _check_size(
    hospitals: Mapping[str, Sequence[Patient]], config: PartitionConfig, seed: int
) -> None:
    for site, patients in hospitals.items():
        if len(patients) < config.min_patients_per_site:
            ways_out = {
                "column": "join it to another with other columns",
                "equal": f"lower sites={config.sites}",
            }
            skewed = f"raise alpha={config.alpha}, lower sites={config.sites}, change seed={seed}"
            way_out = ways_out.get(config.by, skewed)
            raise ValueError(
                f"{site} has patients={len(patients)}, fewer than partition.min_patients_per_site="
                f"{config.min_patients_per_site}; {way_out}, or lower min_patients_per_site"
            )


def _with_sides(
    hospitals: dict[str, list[Patient]], config: PartitionConfig
) -> dict[str, list[Patient]]:
    if config.leave_out is None:
        return hospitals
    if config.leave_out not in hospitals:
        raise ValueError(
            f"partition.leave_out={config.leave_out!r} is no hospital here; choose one of: "
            f"{listed(hospitals)}"
        )
    sides = {site: TEST if site == config.leave_out else TRAIN for site in hospitals}
    return {site: [replace(p, side=sides[site]) for p in own] for site, own in hospitals.items()}
