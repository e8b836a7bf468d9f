"""A patient's row is bounded whatever its images are, and a profile is the noised mean of rows."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from client.cohort import Samples
from client.profile import profile_of, rows_of
from client.row_images import Acquired
from common.models.registry import build_model
from common.profile import sizes_of
from common.tasks.unlabelled import UNLABELLED
from tests.builders import PICTURES, SLICES, study_from

CPU = torch.device("cpu")
LABELS = (
    *("model=cnn", "task=multilabel", "data=pictures", "model.channels=[4,8]", "data.size=[16,16]"),
    *("task.classes=[mass,edema,nodule]", "task.out_channels=3"),
)
STYLED = (*SLICES, "evaluation=shift", "evaluation.amplitudes=true")
KINDS = pytest.mark.parametrize("overrides", [PICTURES, SLICES, STYLED, LABELS])


def samples_of(images: Tensor, targets: Tensor, patients: list[str]) -> Samples:
    acquired = Acquired(spacing_mm=(0.5, 2.0, 5.0), size=(512, 256, 20))
    return Samples(
        images=images,
        targets=targets,
        patients=tuple(patients),
        volumes=tuple(range(len(patients))),
        spacing_mm=((1.0, 1.0, 1.0),) * len(patients),
        acquired=(acquired,) * len(patients),
    )


def drawn(
    overrides: tuple[str, ...], patients: list[str], seed: int, scale: float = 1.0
) -> Samples:
    draws = torch.Generator().manual_seed(seed)
    images = scale * torch.randn(len(patients), 1, 16, 16, generator=draws)
    if overrides == PICTURES:
        targets = torch.randint(2, (len(patients),), generator=draws)
    elif overrides == LABELS:
        targets = torch.randint(2, (len(patients), 3), generator=draws)
    else:
        targets = (torch.rand(len(patients), 1, 16, 16, generator=draws) < 0.02).long()
    return samples_of(images, targets, patients)


def model_of(overrides: tuple[str, ...]) -> nn.Module:
    return build_model(study_from(*overrides).model, seed=0)


@KINDS
@settings(max_examples=30)
@given(seed=st.integers(0, 1000), value=st.sampled_from([0.0, 1.0, 1e6, 1e30, np.inf, np.nan]))
def test_no_part_of_a_patient_is_longer_than_1(
    overrides: tuple[str, ...], seed: int, value: float
) -> None:
    samples = drawn(overrides, ["a", "a", "b"], seed, scale=value)
    rows = rows_of(model_of(overrides), [samples], study_from(*overrides), CPU)
    sizes = sizes_of(study_from(*overrides))
    assert len(rows) == 2
    for row in rows:
        assert {name: len(part) for name, part in row.items()} == dict(sizes)
        assert all(np.linalg.norm(part) <= 1 + 1e-9 for part in row.values())


@KINDS
def test_a_patients_row_does_not_depend_on_the_others(overrides: tuple[str, ...]) -> None:
    study, model = study_from(*overrides), model_of(overrides)
    both = drawn(overrides, ["a", "a", "b"], seed=1)
    alone = samples_of(both.images[:2], both.targets[:2], ["a", "a"])
    first, _ = rows_of(model, [both], study, CPU)
    (same,) = rows_of(model, [alone], study, CPU)
    for name in first:
        np.testing.assert_allclose(first[name], same[name], atol=1e-6)


@KINDS
def test_a_profile_without_noise_is_the_mean_of_both_sides(overrides: tuple[str, ...]) -> None:
    study, model = study_from(*overrides), model_of(overrides)
    sides = [drawn(overrides, ["a", "b"], 1), drawn(overrides, ["c"], 2)]
    rows = rows_of(model, sides, study, CPU)
    told = profile_of(rows, 0.0, torch.Generator())
    assert (told.patients, told.noise_std) == (3, 0.0)
    for name, numbers in told.parts.items():
        np.testing.assert_allclose(numbers, np.mean([row[name] for row in rows], axis=0))


def test_noise_has_the_spread_that_is_told() -> None:
    rows = [{"one": np.zeros(5000), "other": np.zeros(5000)} for _ in range(4)]
    told = profile_of(rows, 2.0, torch.Generator().manual_seed(0))
    assert told.noise_std == pytest.approx(2.0 * 2 * 2**0.5 / 4)
    for numbers in told.parts.values():
        assert np.std(numbers) == pytest.approx(told.noise_std, rel=0.05)


def test_an_image_is_shared_among_its_labels_and_one_without_is_of_none() -> None:
    study, images = study_from(*LABELS), torch.zeros(4, 1, 16, 16)
    targets = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]])
    samples = samples_of(images, targets, ["a", "a", "b", "a"])
    of_a, of_b = rows_of(model_of(LABELS), [samples], study, CPU)
    assert of_a["strata"].tolist() == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3])
    assert of_b["strata"].tolist() == [0, 0, 0, 1]


def test_a_patient_whom_nobody_has_labelled_is_in_all_strata_alike() -> None:
    learns = (*PICTURES, "method=fixmatch")
    targets = torch.tensor([1, UNLABELLED, UNLABELLED])
    samples = samples_of(torch.zeros(3, 1, 16, 16), targets, ["a", "a", "b"])
    of_a, of_b = rows_of(model_of(learns), [samples], study_from(*learns), CPU)
    assert (of_a["strata"].tolist(), of_b["strata"].tolist()) == ([0, 1], [0.5, 0.5])


def test_what_the_parts_are() -> None:
    study = study_from(*SLICES)
    images = torch.zeros(1, 1, 16, 16)
    images[..., :8] = 1.0
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    mask[..., 0, :2] = 1  # a share of 2/256, between 0.005 and 0.02
    (row,) = rows_of(model_of(SLICES), [samples_of(images, mask, ["a"])], study, CPU)
    # 16 bins of 0.5 from -3: half of the voxels in that of 0, half in that of 1.
    np.testing.assert_allclose(row["intensity"][[6, 8]], 0.5)
    blocks = row["appearance"].reshape(6, 6) * 2 * 6
    np.testing.assert_allclose(blocks[:, [0, 5]], [[1.0, 0.0]] * 6)
    assert row["strata"].tolist() == [0, 0, 1, 0]
    whole = row["acquisition"] * 6**0.5
    np.testing.assert_allclose(whole[:3] * 8, [-1, 1, np.log2(5)])
    np.testing.assert_allclose(whole[3:] * 16, [9, 8, np.log2(20)])


@pytest.mark.parametrize("name", ["scattering", "resnet18"])
def test_networks_without_a_map_or_with_a_deep_one_have_features(name: str) -> None:
    overrides: tuple[Any, ...] = (*PICTURES[1:], f"model={name}")
    overrides = tuple(o for o in overrides if not o.startswith("model.channels"))
    more = ("data.size=[64,64]",) if name == "resnet18" else ()
    study = study_from(*overrides, *more)
    samples = drawn(PICTURES, ["a", "b"], 3)
    size = 64 if name == "resnet18" else 16
    images = torch.nn.functional.interpolate(samples.images, size)
    sides = [samples_of(images, samples.targets, ["a", "b"])]
    rows = rows_of(build_model(study.model, 0), sides, study, CPU)
    assert all(np.linalg.norm(row["features"]) > 0 for row in rows)
    assert not np.allclose(rows[0]["moments"], rows[1]["moments"])
