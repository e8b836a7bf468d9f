import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from common.tasks.classification import (
    ClassificationConfig,
    classification_metrics,
    measure,
    score,
)
from common.tasks.ranking import CALIBRATION_BINS, balanced_accuracy, patient_sums
from common.tasks.registry import Sums
from tests.common.tasks.test_ranking import auroc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, count: int, classes: int) -> tuple[Floats, Ints]:
    """Probabilities [count, classes] that know a little about the truth, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    logits = 1.5 * rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth]
    exp = np.exp(logits)
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64), truth


def records(probabilities: Floats, truth: Ints) -> list[Sums]:
    pairs = zip(torch.from_numpy(probabilities), torch.from_numpy(truth), strict=True)
    return [measure(p, t, []) for p, t in pairs]


def added(rows: Sequence[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in rows], axis=0) for key in rows[0]}


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_auroc_is_that_of_the_scores_within_2_in_1000(seed: int) -> None:
    p, truth = draw(seed, 300, 2)
    expected = auroc(truth, p[:, 1])
    assert score(added(records(p, truth)))["auroc"] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_binary_metrics_are_those_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

    p, truth = draw(seed, 400, 2)
    values = score(added(records(p, truth)))
    false, true, _ = roc_curve(truth, p[:, 1], drop_intermediate=False)
    accuracy = balanced_accuracy_score(truth, p.argmax(axis=1))
    assert values["auroc"] == pytest.approx(roc_auc_score(truth, p[:, 1]), abs=2e-3)
    assert values["balanced_accuracy"] == pytest.approx(accuracy)
    # A shared bin at the threshold may cost a few positives.
    sensitive = true[false <= 0.05].max()
    assert values["sensitivity_at_95_specificity"] == pytest.approx(sensitive, abs=0.01)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, classes=st.integers(2, 4))
def test_metrics_equal_the_naive_way(seed: int, classes: int) -> None:
    p, truth = draw(seed, 60, classes)
    assume(len(set(truth)) == classes)
    values = score(added(records(p, truth)))
    answers = p.argmax(axis=1)
    recalls = [np.mean(answers[truth == k] == k) for k in range(classes)]
    assert values["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert values["ece"] == pytest.approx(_naive_ece(p, truth))
    ranked = [1] if classes == 2 else range(classes)
    each = [auroc(truth == k, p[:, k]) for k in ranked]
    # 60 images leave few pairs, so a shared bin weighs more than in a large set.
    assert values["auroc"] == pytest.approx(np.mean(each), abs=5e-3)


def _naive_ece(p: Floats, truth: Ints) -> float:
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    total = 0.0
    for m in range(1, CALIBRATION_BINS + 1):
        low, high = (m - 1) / CALIBRATION_BINS, m / CALIBRATION_BINS
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(truth) * gap
    return total


@settings(max_examples=15, deadline=None)
@given(
    seed=seeds, owner=hnp.arrays(np.int64, 30, elements=st.integers(0, 9)), cut=st.integers(0, 9)
)
def test_sums_of_two_sites_are_those_of_the_union(seed: int, owner: Ints, cut: int) -> None:
    p, truth = draw(seed, 30, 3)
    images = records(p, truth)
    patients = {
        who: patient_sums([images[i] for i in np.flatnonzero(owner == who)]) for who in set(owner)
    }
    nothing = {key: 0 * value for key, value in images[0].items()}
    sites = [
        added([nothing, *(row for who, row in patients.items() if (who < cut) == side)])
        for side in (True, False)
    ]
    union, whole = added(sites), added(images)
    for key in whole:
        np.testing.assert_allclose(union[key], whole[key], atol=1e-12)
    assert score(union)["ece"] == pytest.approx(score(whole)["ece"])


def test_counting_a_patient_twice_is_weighting_its_row_by_two() -> None:
    p, truth = draw(0, 12, 2)
    rows = records(p, truth)
    weighted = {key: 2 * rows[0][key] + sum(r[key] for r in rows[1:]) for key in rows[0]}
    assert score(weighted) == pytest.approx(score(added([rows[0], *rows])))


def test_patient_with_several_images_counts_each() -> None:
    p, truth = draw(1, 3, 2)
    assert patient_sums(records(p, truth))["confusion"].sum() == 3


def test_one_class_alone_leaves_ranking_undefined() -> None:
    p, _ = draw(0, 8, 2)
    values = score(added(records(p, np.zeros(8, dtype=np.int64))))
    undefined = {name for name, value in values.items() if math.isnan(value)}
    assert undefined == {"auroc", "balanced_accuracy", "sensitivity_at_95_specificity"}


def test_macro_auroc_leaves_absent_classes_out() -> None:
    p, truth = draw(3, 200, 3)
    two = truth < 2
    values = score(added(records(p[two], truth[two])))
    each = [auroc(truth[two] == k, p[two][:, k]) for k in (0, 1)]
    assert values["auroc"] == pytest.approx(np.mean(each), abs=2e-3)


def test_no_images_have_no_metrics() -> None:
    p, truth = draw(0, 1, 2)
    nobody = {key: 0 * value for key, value in records(p, truth)[0].items()}
    assert all(math.isnan(value) for value in score(nobody).values())


def test_always_the_same_answer_is_balanced_to_a_half() -> None:
    assert balanced_accuracy(np.array([[0.0, 90.0], [0.0, 10.0]])) == 0.5


def test_sensitivity_is_offered_for_two_classes_alone() -> None:
    assert "sensitivity_at_95_specificity" in classification_metrics(2)
    assert "sensitivity_at_95_specificity" not in classification_metrics(3)


@pytest.mark.parametrize(
    ("settings_of", "message"),
    [
        ({"classes": ["normal"]}, "name two or more"),
        ({"out_channels": 3}, r"out_channels=3 does not fit 2 classes; give 2"),
        ({"headline": "accuracy"}, r"headline='accuracy' is not known.*auroc"),
    ],
)
def test_impossible_settings_name_the_way_out(settings_of: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationConfig(name="classification", **settings_of)  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="not one image's"):
        measure(torch.full((2, 2), 0.5), torch.tensor([0, 1]), [])


def test_diverged_model_is_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        measure(torch.tensor([math.nan, math.nan]), torch.tensor(0), [])
