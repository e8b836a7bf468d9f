import math
import re

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from common.config import load_study
from common.schema import SettingsError
from common.seeding import generator
from common.tasks.registry import build_task
from common.tasks.restoration import (
    LARGEST_DB,
    RestorationConfig,
    bounded_row,
    measure,
    patient_sums,
    restored,
    score,
)
from common.tasks.task import Sums

NAMES = ("zero_filled",)


def pair(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Return a restored image and its target with one reference."""
    draws = generator(seed)
    return torch.rand(1, *shape, generator=draws), torch.rand(2, *shape, generator=draws)


def patient(seed: int) -> Sums:
    return patient_sums([measure(*pair(seed, 9, 10), (1.0, 1.0))])


def added(rows: list[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in rows], axis=0) for key in rows[0]}


def test_psnr_and_ssim_are_those_of_the_definition_and_of_scikit_image() -> None:
    found, target = pair(0, 12, 14)
    record = measure(found, target, (1.0, 1.0))
    error = float((found[0].double() - target[0].double()).square().mean())
    assert record["psnr"][0] == pytest.approx(-10 * math.log10(error), rel=1e-5)
    # scikit-image takes sample covariances unless it is told, and leaves the border out as well.
    expected = structural_similarity(
        found[0].numpy(), target[0].numpy(), data_range=1.0, use_sample_covariance=False
    )
    assert record["ssim"][0] == pytest.approx(expected, abs=1e-4)


def test_a_volume_has_the_mean_ssim_of_its_slices_and_the_psnr_of_all_voxels() -> None:
    found, target = pair(1, 9, 10, 3)
    whole = measure(found, target, (1.0, 1.0, 1.0))
    slices = [measure(found[..., z], target[..., z], (1.0, 1.0)) for z in range(3)]
    assert whole["ssim"] == pytest.approx(np.mean([each["ssim"] for each in slices], axis=0))
    errors = [10 ** (-each["psnr"] / 10) for each in slices]
    assert whole["psnr"] == pytest.approx(-10 * np.log10(np.mean(errors, axis=0)))


def test_the_sums_of_two_sites_are_those_of_the_union() -> None:
    rows = [patient(seed) for seed in range(5)]
    union = score(added(rows), NAMES)
    parts = score(added([added(rows[:2]), added(rows[2:])]), NAMES)
    assert union == pytest.approx(parts)
    assert union["psnr"] == pytest.approx(np.mean([row["psnr"][0] for row in rows]))
    assert union["psnr_gain"] == pytest.approx(union["psnr"] - union["psnr_zero_filled"])


def test_a_perfect_image_is_called_no_closer_than_the_limit() -> None:
    target = torch.rand(2, 8, 8, generator=generator(0))
    record = measure(target[:1], target, (1.0, 1.0))
    assert (record["psnr"][0], record["ssim"][0]) == pytest.approx((LARGEST_DB, 1.0))


def test_rows_are_bounded_and_totals_without_noise_come_back() -> None:
    task = build_task(RestorationConfig(name="restoration"))
    rows = [patient(seed) for seed in range(4)]
    bounded = [bounded_row(row) for row in rows]
    for a in bounded:
        for b in bounded:
            apart = math.sqrt(sum(float(((a[key] - b[key]) ** 2).sum()) for key in a))
            assert apart <= task.bounded.sensitivity
    back = restored(added(bounded), len(rows))
    assert score(back, NAMES) == pytest.approx(score(added(rows), NAMES))


def test_a_training_step_sees_another_degradation_of_the_same_image() -> None:
    task = build_task(RestorationConfig(name="restoration"))
    assert task.vary is not None
    target = torch.rand(2, 2, 16, 16, generator=generator(0))
    draws = generator(1)
    first, second = (task.vary(target[:, :1], target, draws)[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert task.vary(target[:0, :1], target[:0], draws)[0].shape == (0, 1, 16, 16)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.normalise=zscore", "set data.normalise=minmax"),
        ("data.channels=3", "set data.channels=1"),
        ("data.augment=full", "choose flip or none"),
        ("data.size=[6,64]", "has a side below 7"),
        ("data.segment=[32,32]", "each line of k-space is of the whole image"),
        ("task.headline=dice", "task.headline='dice'"),
        ("task.out_channels=2", "one grey value a voxel"),
        ("task.loss={name: dice}", "task.loss.name='dice'"),
    ],
)
def test_what_cannot_be_restored_is_refused_before_any_work(setting: str, told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load_study(["task=restoration", "data.normalise=minmax", setting])


def test_only_grey_answers_are_added_to_an_image() -> None:
    with pytest.raises(SettingsError, match="residual=true adds the image to the answer"):
        load_study(["model=unet128", "model.residual=true"])
