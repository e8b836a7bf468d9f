"""Whether the distances between sites order scanners as what they do to the same patients does.

    python -m simulation.benchmark.distances [--json] [--quick]

Twelve scanners, each at a hospital with patients of its own. What is known: two scanners are as far
apart as their images of the same few patients, voxel by voxel (root mean square, after the images
were normalised). What the sites tell: their profiles, by a network that nobody has trained. A row
is a measure; `rank` is Spearman's correlation with what is known over the 66 pairs, `noised` the
same with the noise of a multiplier of 1 at hospitals of 400 patients, median of nine draws.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.stats import spearmanr

from client.cohort import Samples, load_cohort
from client.manifest import read_manifest
from client.profile import profile_of, rows_of
from common.config import load_study
from common.contract import Profile
from common.models.registry import build_model
from common.profile import noise_std
from common.study import Study
from server.evaluation.distance import distances_of
from simulation.benchmark.table import Row, run_benchmark
from simulation.config import named_scanner
from simulation.hospitals import Hospital, write_hospital
from simulation.scanner import ScannerConfig

STUDY = ("experiment=virtual_mri",)
PAIRED = ("data=volumes", "data.size=[48,48,16]", "data.spacing_mm=[3.0,3.0,9.0]")
NOISE_MULTIPLIER, PATIENTS, DRAWS = 1.0, 400, 9
CPU = torch.device("cpu")


def main() -> None:
    """Measure and print the rows."""
    about = "rank correlation of the sites' distances with what their scanners do to one patient"
    run_benchmark("distances", about, rows_of_measures, sys.argv[1:])


def scanners() -> list[ScannerConfig]:
    """Return the six scanners of configs/simulation/scanner, and another protocol of each."""
    other: Mapping[str, dict[str, float]] = {
        "flair_3t": {"te_ms": 130.0, "noise_std": 0.1},
        "flair_1p5t": {"ti_ms": 2000.0},
        "flair_3t_fast": {"te_ms": 80.0, "noise_std": 0.08},
        "se_t2_1p5t": {"te_ms": 60.0, "tr_ms": 2500.0},
        "se_t1_1p5t": {"te_ms": 20.0, "tr_ms": 800.0},
        "spgr_t1_3t": {"flip_deg": 12.0},
    }
    named = [named_scanner(name) for name in other]
    return named + [
        replace(one, name=f"{one.name}_other", **other[one.name])  # type: ignore[arg-type]
        for one in named
    ]


def rows_of_measures(quick: bool) -> list[Row]:
    """Return one row a measure."""
    paired, patients = (2, 8) if quick else (4, 40)
    study = load_study(list(STUDY))
    with tempfile.TemporaryDirectory(prefix="wardround-scanners-") as name:
        folder = Path(name)
        known = known_distances(folder, paired)
        profiles = {
            one.name: profile_at(folder, Hospital(name=one.name, scanner=one, patients=patients))
            for one in scanners()
        }
    found = ranks(profiles, known, study)
    noised = [ranks(_noised(profiles, seed), known, study) for seed in range(DRAWS)]
    return [
        {"name": measure, "rank": rank, "noised": median(of[measure] for of in noised)}
        for measure, rank in found.items()
    ]


def ranks(
    profiles: Mapping[str, Profile], known: Mapping[tuple[str, str], float], study: Study
) -> dict[str, float]:
    """Return each measure's rank correlation with the known distances."""
    told = distances_of(profiles, study)
    order = list(known)
    return {
        measure: float(spearmanr([of[a][b] for a, b in order], [known[p] for p in order]).statistic)
        for measure, of in told.items()
        # The image alone: matrix and voxel size are not what a patient looks like.
        if measure not in ("acquisition", "label_shift")
    }


def known_distances(folder: Path, patients: int) -> dict[tuple[str, str], float]:
    """Return how far apart each two scanners' images of the same patients are."""
    study = load_study([*STUDY, *PAIRED])
    images = {}
    for one in scanners():
        # The patients depend on the hospital's name, so all of these see the same.
        same = Hospital(name="same", scanner=one, patients=patients, held_out=0.0)
        images[one.name] = _cohort(folder / "same" / one.name, same, study)[0].images
    return {
        (a, b): float((images[a] - images[b]).square().mean().sqrt())
        for a, b in combinations(sorted(images), 2)
    }


def profile_at(folder: Path, hospital: Hospital) -> Profile:
    """Return the exact profile of a hospital."""
    study = load_study(list(STUDY))
    sides = _cohort(folder / hospital.name, hospital, study)
    model = build_model(study.model, study.seed)
    return profile_of(rows_of(model, sides, study, CPU), 0.0, torch.Generator())


def _cohort(folder: Path, hospital: Hospital, study: Study) -> tuple[Samples, Samples]:
    manifest = write_hospital(folder, hospital, seed=0)
    cohort = load_cohort(read_manifest(manifest), study.data, study.task, 0)
    return cohort.train, cohort.held_out


def _noised(profiles: Mapping[str, Profile], seed: int) -> dict[str, Profile]:
    """Return the profiles as larger hospitals would tell them with differential privacy."""
    draws = np.random.default_rng(seed)
    found = {}
    for site, profile in profiles.items():
        std = noise_std(NOISE_MULTIPLIER, len(profile.parts), PATIENTS)
        parts = {
            name: (np.asarray(values) + draws.normal(0, std, len(values))).tolist()
            for name, values in profile.parts.items()
        }
        found[site] = Profile(patients=PATIENTS, noise_std=std, parts=parts)
    return found


if __name__ == "__main__":
    main()
