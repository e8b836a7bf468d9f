"""Subgroups: none of too few patients, and what is told of them is noised with their sizes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client import subgroups
from client.evaluation import bootstrap
from client.subgroups import exact_subgroups, members_of, noised_subgroups
from common.tasks.registry import build_task
from common.tasks.task import Sums
from tests.builders import PICTURES, SLICES, study_from

TASK = build_task(study_from(*SLICES).task)
ASKED = {"sex": ["F", "M"], "age": ["50"]}


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
def test_no_group_of_few_patients_is_told_of(sexes: str, least: int) -> None:
    rows = rows_of([0.5] * len(sexes))
    asked = {"sex": ["F", "M"]}
    told = exact_subgroups(rows, members_of(list(rows), covariates(sexes), asked), TASK, 1, least)
    sizes = {"sex=F": sexes.count("F"), "sex=M": sexes.count("M")}
    assert set(told) == {name for name, size in sizes.items() if size >= least}


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


@pytest.mark.parametrize("asked", [{"sex": ["F", "M"]}, ASKED])
def test_the_noise_is_as_wide_as_it_is_charged_for(
    asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, sexes = rows_of([1.0, *[0.5] * 39]), "F" * 20 + "M" * 20
    before = members_of(list(rows), covariates(sexes), asked)
    # The first patient is another one now: of the other sex, of another age, with nothing found.
    moved = {**covariates(sexes), "p000": {"sex": "M", "age": "70"}}
    other = {**rows, **rows_of([0.0])}
    widths: list[float] = []

    def plain(total: Sums, std: float, noise: torch.Generator) -> Sums:
        widths.append(std)
        seen.append(np.concatenate([total[name].ravel() for name in sorted(total)]))
        return total

    monkeypatch.setattr(subgroups, "noised", plain)
    vectors = []
    for people, members in ((rows, before), (other, members_of(list(rows), moved, asked))):
        seen: list[np.ndarray] = []
        noised_subgroups(people, members, TASK, 1.5, noise(0), 1)
        vectors.append(np.concatenate(seen))
    apart = float(np.linalg.norm(vectors[0] - vectors[1]))
    most = math.sqrt(2 * len(asked) * (TASK.bounded.sensitivity**2 + 1))
    assert 0.8 * most < apart <= most
    assert set(widths) == {1.5 * most}


def test_noise_decides_whether_a_small_group_is_told_of_and_the_same_noise_decides_alike() -> None:
    rows = rows_of([0.5] * 12)
    members = members_of(list(rows), covariates("F" * 5 + "M" * 7), {"sex": ["F", "M"]})

    def told(seed: int) -> set[str]:
        return set(noised_subgroups(rows, members, TASK, 2.0, noise(seed), 5))

    found = [told(seed) for seed in range(50)]
    assert len({frozenset(of) for of in found}) > 1
    assert found == [told(seed) for seed in range(50)]
