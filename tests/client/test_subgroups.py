"""Subgroups: none of too few patients, and what is told of them is noised with their sizes."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.evaluation import bootstrap
from client.subgroups import exact_subgroups, members_of, noised_subgroups
from common.tasks.registry import build_task
from common.tasks.task import Sums
from tests.builders import PICTURES, SLICES, study_from

TASK = build_task(study_from(*SLICES).task)
ASKED = {"sex": ["F", "M"], "age": ["50"]}
SEEDS = 400


def rows_of(values: list[float]) -> dict[str, Sums]:
    return {
        f"p{n:03d}": {
            "dice": np.array([value]),
            "patients": np.ones(1),
            "hd95_mm": np.zeros(1),
            "hd95_patients": np.zeros(1),
        }
        for n, value in enumerate(values)
    }


def covariates(sexes: str) -> dict[str, dict[str, str]]:
    return {f"p{n:03d}": {"sex": sex, "age": str(40 + n)} for n, sex in enumerate(sexes)}


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_groups_metrics_are_those_of_its_patients() -> None:
    rows = rows_of([0.2, 0.4, 0.6, 0.8])
    told = exact_subgroups(rows, members_of(list(rows), covariates("FMFM"), ASKED), TASK, 1, 1)
    assert set(told) == {"sex=F", "sex=M", "age<50"}
    women = bootstrap([rows["p000"], rows["p002"]], TASK, 1)
    assert told["sex=F"] == women
    assert told["sex=F"]["dice"].value == pytest.approx(0.4)
    assert told["age<50"]["dice"].n == 4


@given(sexes=st.text("FMx", min_size=1, max_size=30), least=st.integers(1, 8))
def test_no_few_patients_are_told_of_nor_left_over(sexes: str, least: int) -> None:
    rows = rows_of([0.5] * len(sexes))
    asked = {"sex": ["F", "M"]}
    told = exact_subgroups(rows, members_of(list(rows), covariates(sexes), asked), TASK, 1, least)
    sizes = [estimates["dice"].n for estimates in told.values()]
    assert all(size >= least for size in sizes)
    # Whatever is subtracted from what is known of all, no few are left.
    for count in range(1, len(sizes) + 1):
        for some in combinations(sizes, count):
            if sum(some) == sum(sizes):
                assert not 0 < len(sexes) - sum(some) < least


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_another_patient_in_the_same_place_moves_the_vector_by_its_bound_at_most(
    data: st.DataObject,
) -> None:
    task = build_task(study_from(*data.draw(st.sampled_from([PICTURES, SLICES]))).task)
    length = task.bounded.sensitivity
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    target = torch.tensor(1) if task.config.name == "classification" else torch.ones(1, 4, 4).long()
    shape = (2,) if target.ndim == 0 else (2, 4, 4)

    def row() -> np.ndarray:
        probabilities = torch.from_numpy(random.dirichlet([0.3, 0.3], shape[1:])).float()
        moved = probabilities.movedim(-1, 0)
        sums = task.patient_sums([task.measure(moved, target, (1.0,) * (len(shape) - 1))])
        return np.concatenate([v.ravel() for v in task.bounded.row(sums).values()])

    one, other = row(), row()
    assert np.linalg.norm(one) <= length + 1e-9
    apart = np.concatenate([one, [1.0], -other, [-1.0]])
    assert np.linalg.norm(apart) <= math.sqrt(2 * (length**2 + 1)) + 1e-9


def test_the_noise_is_as_wide_as_it_is_charged_for() -> None:
    rows = rows_of([0.5] * 40)
    asked = {"sex": ["F"]}
    members = members_of(list(rows), covariates("F" * 40), asked)
    told = [noised_subgroups(rows, members, TASK, 0.5, noise(seed), 1) for seed in range(SEEDS)]
    sizes = [of["sex=F"]["dice"].n for of in told if "sex=F" in of]
    values = [of["sex=F"]["dice"].value for of in told if "sex=F" in of]
    assert len(sizes) == SEEDS
    # Of one covariate and rows of length 1: sqrt(2 x 2) x 0.5 = 1. No size is told above 40.
    low = np.array([40 - size for size in sizes if size < 40])
    assert math.sqrt(np.mean(low.astype(float) ** 2)) == pytest.approx(1.3, abs=0.3)
    assert len(set(values)) > SEEDS / 4
    assert np.mean([v for v in values if v is not None]) == pytest.approx(0.5, abs=0.01)
    assert all(of["sex=F"]["dice"].low is None for of in told)


def test_noise_decides_whether_a_small_group_is_told_of_and_the_same_noise_decides_alike() -> None:
    rows = rows_of([0.5] * 12)
    members = members_of(list(rows), covariates("F" * 5 + "M" * 7), {"sex": ["F", "M"]})

    def told(seed: int) -> set[str]:
        return set(noised_subgroups(rows, members, TASK, 2.0, noise(seed), 5))

    found = [told(seed) for seed in range(50)]
    assert len({frozenset(of) for of in found}) > 1
    assert found == [told(seed) for seed in range(50)]
