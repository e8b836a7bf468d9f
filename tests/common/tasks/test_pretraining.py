import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training import random_part
from common.config import load_study
from common.schema import SettingsError
from common.seeding import generator
from common.tasks.pretraining import (
    WORST,
    PretrainingConfig,
    bounded_row,
    hidden,
    measure,
    patient_sums,
    restored,
    score,
    turned,
)
from common.tasks.registry import build_task
from common.tasks.task import Sums

MASKED = PretrainingConfig(name="pretraining", patch=4)
ROTATED = PretrainingConfig(
    name="pretraining",
    method="rotated",
    out_channels=4,
    hidden_share=None,
    patch=None,
    headline="balanced_accuracy",
)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0))


@given(
    share=st.floats(0.05, 0.95),
    shape=st.sampled_from([(3, 1, 16, 12), (2, 1, 8, 12, 10)]),
    seed=st.integers(0, 99),
)
def test_whole_patches_are_hidden_as_many_of_each_image(
    share: float, shape: tuple[int, ...], seed: int
) -> None:
    config = PretrainingConfig(name="pretraining", patch=4, hidden_share=share)
    clean = images(*shape)
    seen, targets = hidden(clean, config, generator(seed))
    places = targets[:, 1:]
    assert torch.equal(targets[:, :1], clean)
    assert torch.equal(seen, torch.where(places > 0, 0.0, clean))
    grid = [-(-n // 4) for n in shape[2:]]
    # The first voxel of a patch says whether it is hidden; all of its others agree.
    first = places[(..., *[slice(None, None, 4)] * len(grid))]
    for axis, size in enumerate(shape[2:], start=2):
        first = first.repeat_interleave(4, axis).narrow(axis, 0, size)
    assert torch.equal(first, places)
    count = math.prod(grid)
    each = places[(..., *[slice(None, None, 4)] * len(grid))].flatten(1).sum(1)
    assert set(each.tolist()) == {max(1, min(count - 1, round(share * count)))}


def test_the_loss_is_of_what_is_hidden_alone_and_each_images_own() -> None:
    task = build_task(MASKED)
    _, targets = hidden(images(3, 1, 8, 8), MASKED, generator(1))
    grey = torch.zeros(3, 1, 8, 8)
    seen = torch.where(targets[:, 1:] > 0, grey, 9.0)
    assert task.loss(grey, targets) == task.loss(seen, targets)
    single = [task.loss(grey[i : i + 1], targets[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(task.loss(grey, targets), torch.stack(single).mean())


def patient(seed: int, scale: float) -> Sums:
    _, (target,) = hidden(images(1, 1, 8, 8), MASKED, generator(seed))
    return patient_sums([measure(scale * target[:1], target, (1.0, 1.0))])


def added(rows: list[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in rows], axis=0) for key in rows[0]}


def test_who_says_the_mean_explains_nothing_and_who_is_right_leaves_nothing() -> None:
    assert score(patient(0, 0.0))["unexplained"] == pytest.approx(1.0)
    assert score(patient(0, 1.0))["unexplained"] == pytest.approx(0.0)
    assert score(patient(0, 0.5))["unexplained"] == pytest.approx(0.25)
    assert score(patient(0, -9.0))["unexplained"] == WORST


def test_the_sums_of_two_sites_are_those_of_the_union_and_rows_are_bounded() -> None:
    rows = [patient(seed, seed / 4) for seed in range(6)]
    whole, parts = added(rows), added([added(rows[:2]), added(rows[2:])])
    assert score(whole) == pytest.approx(score(parts))
    bounded = [bounded_row(row) for row in rows]
    assert all(
        0 <= row["unexplained"][0] <= build_task(MASKED).bounded.sensitivity for row in bounded
    )
    assert score(restored(added(bounded), len(rows))) == pytest.approx(score(whole))


@given(seed=st.integers(0, 99), so_far=st.integers(0, 3))
def test_turns_add_up_and_turning_back_gives_the_image(seed: int, so_far: int) -> None:
    clean = images(4, 1, 6, 6)
    begun = torch.rot90(clean, so_far, (2, 3))
    seen, target = turned(begun, torch.full((4,), so_far), generator(seed))
    for image, turns, original in zip(seen, target.tolist(), clean, strict=True):
        assert torch.equal(torch.rot90(image, -turns, (1, 2)), original)
    assert len(turned(begun[:0], torch.zeros(0, dtype=torch.int64), generator(0))[0]) == 0


def test_turns_are_a_classification_into_four() -> None:
    task = build_task(ROTATED)
    logits = torch.eye(4) * 9
    records = [task.measure(p, torch.tensor(k), ()) for k, p in enumerate(task.activate(logits))]
    assert task.score(task.patient_sums(records))["balanced_accuracy"] == 1.0
    assert task.vary is turned


def test_in_training_the_label_stays_the_turn_of_the_upright_image() -> None:
    """The cohort is turned once, and then what random_part does in a step is done."""
    study = load_study(["experiment=pneumonia_pretraining"])
    upright = images(1, 1, 8, 8)
    seen, target = turned(upright.expand(64, -1, -1, -1), torch.zeros(64).long(), generator(0))
    change = random_part(study, build_task(study.task), generator(1))
    assert change is not None
    for image, turns in zip(*change(seen, target), strict=True):
        assert torch.equal(torch.rot90(image, -int(turns), (1, 2)), upright[0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("task.method=jigsaw", "task.method='jigsaw'"),
        ("model=cnn method=contrastive task.out_channels=1", "give 2 and []"),
        ("model=cnn method=contrastive task.loss={name: l2}", "task.loss.name='l2'"),
        ("model=cnn method=contrastive data.augment=flip", "set none and null"),
        ("model=cnn method=contrastive data.covariates={age: [18, 95]}", "set it to null: a study"),
        ("model=cnn method=contrastive privacy=patient_eps8", "use task.method=rotated"),
        ("task.method=rotated", "do not fit task.method=rotated"),
        ("task.patch=null", "task.patch=None does not go with"),
        ("task.patch=40", "more than half of data.size"),
        ("data.augment=full", "choose flip or none"),
        ("data.normalise=minmax", "set data.normalise=zscore"),
        ("data.normalise=rank", "set data.normalise=zscore"),
        ("task.headline=dice", "task.headline='dice'"),
        (
            "task.method=rotated task.out_channels=4 task.patch=null task.hidden_share=null "
            "task.headline=auroc data.size=[64,32]",
            "not square in the plane",
        ),
        (
            "task.method=rotated task.out_channels=4 task.patch=null task.hidden_share=null "
            "task.headline=auroc data=pictures",
            "set data.augment=none",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: str, told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load_study(["task=pretraining", *re.split(r" (?=[a-z_.]+=)", settings)])
