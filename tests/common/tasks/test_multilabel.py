import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from client.evaluation import bootstrap
from common.tasks.config import LossConfig
from common.tasks.losses import OF_LABELS, loss_of
from common.tasks.multilabel import MultilabelConfig, build_multilabel
from common.tasks.ranking import score_bin
from common.tasks.task import Sums

LABELS = ["effusion", "mass", "nodule"]
TASK = build_multilabel(MultilabelConfig(name="multilabel", classes=LABELS, out_channels=3))
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities [count, 3] that know a little about the truth, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=(count, 3))
    logits = rng.normal(size=(count, 3)) * 2 + truth
    return torch.from_numpy(logits).float().sigmoid(), torch.from_numpy(truth)


def records(probabilities: torch.Tensor, truth: torch.Tensor) -> list[Sums]:
    return [TASK.measure(p, t, []) for p, t in zip(probabilities, truth, strict=True)]


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_metrics_are_those_of_scikit_learn_label_by_label(seed: int) -> None:
    probabilities, truth = draw(seed, 60)
    found = TASK.score(TASK.patient_sums(records(probabilities, truth)))
    areas: list[float] = []
    balanced: list[float] = []
    for label, name in enumerate(LABELS):
        p, t = probabilities[:, label].numpy(), truth[:, label].numpy()
        bins = np.array([score_bin(np.array([1 - one, one]), 1) for one in p])
        areas.append(float(roc_auc_score(t, bins)))
        balanced.append(float(balanced_accuracy_score(t, p >= 0.5)))
        assert found[f"auroc_{name}"] == pytest.approx(areas[-1])
        # A pair that shares a bin counts a half, whichever of the two is the higher.
        shared = float((bins[t == 1, None] == bins[None, t == 0]).mean())
        assert abs(areas[-1] - float(roc_auc_score(t, p))) <= shared / 2 + 1e-9
        assert shared < 0.05
    assert found["auroc"] == pytest.approx(np.mean(areas))
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))


def test_calibration_counts_every_answer() -> None:
    probabilities = torch.tensor([[0.9, 0.2, 0.6]])
    sums = TASK.patient_sums(records(probabilities, torch.tensor([[1, 0, 0]])))
    answers, right, confidence = sums["calibration"].sum(axis=1)
    assert (answers, right) == (3, 2)
    assert confidence == pytest.approx(0.9 + 0.8 + 0.6, abs=1e-6)


def test_a_label_that_no_image_has_is_left_out_of_the_mean() -> None:
    probabilities, truth = draw(1, 30)
    truth[:, 1] = 0
    found = TASK.score(TASK.patient_sums(records(probabilities, truth)))
    assert math.isnan(found["auroc_mass"])
    areas = (found["auroc_effusion"], found["auroc_nodule"])
    assert found["auroc"] == pytest.approx(np.mean(areas))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, images=st.integers(1, 4), others=st.integers(1, 4))
def test_two_patients_rows_are_no_further_apart_than_the_sensitivity(
    seed: int, images: int, others: int
) -> None:
    rows = []
    for offset, count in enumerate((images, others)):
        row = TASK.bounded.row(TASK.patient_sums(records(*draw((seed + offset) % 2**32, count))))
        rows.append(np.concatenate([array.ravel() for array in row.values()]))
    assert np.linalg.norm(rows[0] - rows[1]) <= TASK.bounded.sensitivity + 1e-9


def test_the_sensitivity_is_reached_by_patients_who_differ_in_everything() -> None:
    ones, zeros = torch.ones(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64)
    rows = [
        TASK.bounded.row(TASK.patient_sums(records(torch.full((1, 3), p), truth)))
        for p, truth in ((0.999, ones), (0.001, zeros))
    ]
    apart = [(rows[0][name] - rows[1][name]).ravel() for name in rows[0]]
    assert np.linalg.norm(np.concatenate(apart)) == pytest.approx(TASK.bounded.sensitivity)


def test_totals_without_noise_are_restored_as_they_are() -> None:
    rows = [TASK.bounded.row(TASK.patient_sums([r])) for r in records(*draw(3, 8))]
    totals = {name: sum((row[name] for row in rows), np.zeros(())) for name in rows[0]}
    again = TASK.bounded.restore(totals, len(rows))
    for name, array in totals.items():
        np.testing.assert_allclose(again[name], array, atol=1e-9)
    assert TASK.score(again).keys() == TASK.metrics.keys() - {"ece"}


def test_noised_totals_are_restored_to_counts_that_can_be() -> None:
    rng = np.random.default_rng(0)
    noised: dict[str, NDArray[np.float64]] = {
        "scores": rng.normal(0, 5, (3, 2, 8)),
        "confusion": rng.normal(0, 5, (3, 2, 2)),
    }
    for array in TASK.bounded.restore(noised, 12).values():
        assert (array >= 0).all()
        np.testing.assert_allclose(array.reshape(3, -1).sum(axis=1), 12.0)


def test_the_loss_is_the_cross_entropy_of_each_label_with_a_weight_on_those_that_have_it() -> None:
    probabilities, truth = draw(0, 4)
    p, y = probabilities.double(), truth.double()
    w = torch.tensor([2.0, 1.0, 5.0], dtype=torch.float64)
    logits = p.logit()
    plain = loss_of(OF_LABELS, None, 3)(logits, truth)
    torch.testing.assert_close(plain, -(y * p.log() + (1 - y) * (1 - p).log()).mean())
    weighted = LossConfig(name="cross_entropy", class_weights=[2.0, 1.0, 5.0])
    expected = -(w * y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(loss_of(OF_LABELS, weighted, 3)(logits, truth), expected)
    of_truth = torch.where(truth > 0, p, 1 - p)
    focal = loss_of(OF_LABELS, LossConfig(name="focal", gamma=3.0), 3)(logits, truth)
    torch.testing.assert_close(focal, (-((1 - of_truth) ** 3) * of_truth.log()).mean())


@pytest.mark.parametrize(
    ("settings_of", "message"),
    [
        ({"classes": []}, "leaves nothing to find"),
        ({"out_channels": 4}, "out_channels=4 does not fit 3 labels"),
        ({"no_label": "mass"}, "no_label='mass'"),
        ({"no_label": "a|b"}, r"no_label='a\|b'"),
        ({"no_label": ""}, "no_label=''"),
        ({"no_label": " none"}, "no_label=' none'"),
        ({"no_label": "n/a"}, "no_label='n/a'"),
        ({"headline": "auroc_hernia"}, "headline='auroc_hernia'"),
        ({"loss": LossConfig(name="dice")}, "task.loss.name='dice'"),
    ],
)
def test_impossible_settings_name_the_way_out(settings_of: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultilabelConfig(
            **{"name": "multilabel", "classes": LABELS, "out_channels": 3, **settings_of}
        )


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and a target of shape \(2,\)"):
        TASK.measure(torch.zeros(3), torch.zeros(2, dtype=torch.int64), [])


def test_a_mean_over_labels_has_an_interval_of_the_same_labels_as_its_value() -> None:
    # The second label has one patient, whom many resamples have not got.
    truth = torch.tensor([[k % 2, int(k == 0), k % 2] for k in range(20)])
    probabilities = torch.where(truth > 0, 0.9, 0.1)
    probabilities[:, 1] = torch.linspace(0.1, 0.9, 20)
    rows = [TASK.patient_sums([record]) for record in records(probabilities, truth)]
    found = bootstrap(rows, TASK, 0)
    assert found["auroc"].value == pytest.approx(2 / 3)
    assert found["auroc"].high == pytest.approx(2 / 3, abs=0.02)
    assert (found["auroc_effusion"].low, found["auroc_effusion"].high) == (1.0, 1.0)


def test_a_label_that_says_nothing_is_at_a_half() -> None:
    assert TASK.config.even_answer == 0.5
