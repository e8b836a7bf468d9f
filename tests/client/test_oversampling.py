from dataclasses import replace

import numpy as np
import pytest
import torch

from client.cohort import Samples
from client.oversampling import factors_of, kept_of_units
from client.privacy.dp_sgd import PrivateGradient, private_plan
from client.training import PlainGradient
from common.models.registry import build_model
from common.tasks.unlabelled import UNLABELLED
from tests.builders import PICTURES, PRIVATE, samples_of, study_from

RARE = ("training.oversample={pneumonia: 3.0}",)
LABELS = [0, 0, 0, 1, 0, 0, 1, 0]


def labelled(labels: list[int]) -> Samples:
    return replace(samples_of([1] * len(labels)), targets=torch.tensor(labels))


def test_a_factor_is_that_of_the_images_own_class() -> None:
    samples = labelled(LABELS)
    factors = factors_of(samples, study_from(*PICTURES, *RARE))
    assert factors is not None
    assert factors.tolist() == [3.0 if label else 1.0 for label in LABELS]
    assert factors_of(samples, study_from(*PICTURES)) is None


def test_an_image_without_a_label_is_drawn_as_one_of_no_rare_class() -> None:
    both = "training.oversample={normal: 2.0, pneumonia: 3.0}"
    found = factors_of(labelled([0, UNLABELLED, 1]), study_from(*PICTURES, both))
    assert found is not None
    assert found.tolist() == [2.0, 1.0, 3.0]


def test_of_a_mask_the_class_with_the_largest_factor_counts() -> None:
    study = study_from(
        "task.classes=[head,tail]",
        "task.label_values=[1,2]",
        "task.out_channels=3",
        "training.oversample={head: 2.0, tail: 5.0}",
    )
    masks = torch.zeros(5, 1, 3, 3, dtype=torch.int64)
    masks[1, 0, 0, 0] = 1
    masks[2, 0, 0, :2] = torch.tensor([1, 2])
    masks[3, 0, 1, 1] = 2
    masks[4] = UNLABELLED
    samples = replace(labelled([0] * 5), targets=masks)
    found = factors_of(samples, study)
    assert found is not None
    assert found.tolist() == [1.0, 2.0, 5.0, 5.0, 1.0]


def test_of_several_labels_the_one_with_the_largest_factor_counts() -> None:
    study = study_from(
        *("task=multilabel", "model=cnn", "data=pictures", "task.classes=[mass,edema]"),
        "training.oversample={mass: 2.0, edema: 5.0}",
    )
    targets = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    found = factors_of(replace(labelled([0] * 4), targets=targets), study)
    assert found is not None
    assert found.tolist() == [1.0, 2.0, 5.0, 5.0]


def test_a_unit_counts_as_its_image_of_the_largest_factor() -> None:
    kept = kept_of_units(torch.tensor([1.0, 3.0, 1.0]), [[0, 1], [2]], 0.2, 0.6)
    assert kept is not None
    assert kept.tolist() == pytest.approx([1.0, 1 / 3])
    assert kept_of_units(None, [[0]], 0.2, 0.2) is None


def test_where_the_largest_rate_is_1_the_others_keep_theirs() -> None:
    kept = kept_of_units(torch.tensor([1.0, 10.0]), [[0], [1]], 0.4, 1.0)
    assert kept is not None
    assert kept.tolist() == pytest.approx([0.4, 1.0])


def test_plain_epochs_draw_the_rare_class_as_often_as_was_asked() -> None:
    study = study_from(*PICTURES, *RARE, "training.local_epochs=400", "training.batch_size=8")
    samples = labelled(LABELS)
    source = PlainGradient(
        build_model(study.model, 0),
        study.training,
        len(LABELS),
        torch.Generator().manual_seed(0),
        factors_of(samples, study),
    )
    seen = torch.cat(list(source.batches()))
    counts = np.bincount(seen.numpy(), minlength=len(LABELS))
    ratio = counts[[3, 6]].mean() / counts[[0, 1, 2, 4, 5, 7]].mean()
    assert ratio == pytest.approx(3.0, rel=0.15)


def test_private_steps_draw_each_unit_at_its_own_rate_and_charge_the_largest() -> None:
    overrides = (*PICTURES, *PRIVATE, *RARE, "training.batch_size=2", "training.local_steps=4000")
    study = study_from(*overrides)
    samples = labelled(LABELS)
    plan = private_plan(study, [1] * len(LABELS))
    assert plan.sample_rate == pytest.approx(3 * 2 / 8)
    assert plan.patient_cost.sample_rate == plan.sample_rate
    # What the sum is divided by tells nothing of how many are of which class.
    assert plan.units_a_step == 2
    model = build_model(study.model, 0)
    source = PrivateGradient(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        plan,
        study,
        samples,
        torch.Generator().manual_seed(0),
        torch.Generator().manual_seed(1),
        32,
    )
    steps = list(source.batches())
    source.close()
    rates = np.bincount(torch.cat(steps).numpy(), minlength=len(LABELS)) / len(steps)
    for rate, label in zip(rates, LABELS, strict=True):
        assert rate == pytest.approx(0.75 if label else 0.25, abs=0.03)


def test_a_class_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"oversample has \['sick'\].*normal"):
        study_from(*PICTURES, "training.oversample={sick: 2.0}")


def test_a_factor_under_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"oversample.normal=0.5"):
        study_from(*PICTURES, "training.oversample={normal: 0.5}")
