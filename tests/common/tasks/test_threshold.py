"""Thresholds: the best by Youden's index, chosen by some patients and applied to others."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.tasks.classification import ClassificationConfig, build_classification
from common.tasks.config import TaskConfig
from common.tasks.multilabel import MultilabelConfig, build_multilabel
from common.tasks.ranking import score_bin
from common.tasks.task import Sums, Task
from common.tasks.threshold import best_bin, decided

Counts = st.lists(st.integers(0, 3), min_size=6, max_size=6)


def task_with(share: float | None) -> Task:
    return build_classification(ClassificationConfig(name="classification", threshold_share=share))


def sums_of(task: Task, probabilities: list[float], labels: list[int]) -> Sums:
    return task.patient_sums(
        [
            task.measure(torch.tensor([1 - p, p]), torch.tensor(label), ())
            for p, label in zip(probabilities, labels, strict=True)
        ]
    )


@given(Counts, Counts)
def test_the_chosen_bin_is_as_good_as_the_best_of_all(
    negatives: list[int], positives: list[int]
) -> None:
    def youden(least: int) -> float:
        return sum(positives[least:]) / sum(positives) + sum(negatives[:least]) / sum(negatives) - 1

    chosen = best_bin(np.array(negatives, float), np.array(positives, float))
    if not sum(negatives) or not sum(positives):
        assert chosen is None
    else:
        assert chosen is not None
        assert youden(chosen) == pytest.approx(max(youden(least) for least in range(6)))


def test_between_two_classes_that_are_apart_the_threshold_is_in_the_middle() -> None:
    negatives, positives = np.zeros(101), np.zeros(101)
    negatives[10], positives[90] = 5, 2
    assert best_bin(negatives, positives) == 51


def test_patients_who_choose_move_the_answers_of_others_and_not_their_ranking() -> None:
    task = task_with(0.2)
    assert task.answers_by is not None
    # A model that never says more than 0.3: the usual threshold finds nobody.
    choosing = sums_of(task, [0.05, 0.1, 0.25, 0.3], [0, 0, 1, 1])
    held_out, labels = [0.02, 0.12, 0.22, 0.28], [0, 0, 1, 1]
    before = task.score(sums_of(task, held_out, labels))
    chosen = task.answers_by(task, choosing)
    after = chosen.score(sums_of(chosen, held_out, labels))
    assert (before["sensitivity"], before["specificity"]) == (0.0, 1.0)
    assert (after["sensitivity"], after["specificity"]) == (1.0, 1.0)
    assert (before["balanced_accuracy"], after["balanced_accuracy"]) == (0.5, 1.0)
    assert all(before[name] == after[name] for name in ("auroc", "ece"))
    assert set(after) == set(task.metrics)


def test_of_one_class_nobody_can_choose() -> None:
    task = task_with(0.2)
    assert task.answers_by is not None
    assert task.answers_by(task, sums_of(task, [0.1, 0.3], [1, 1])) is task


def test_without_those_who_choose_the_metrics_are_as_they_were() -> None:
    task = task_with(None)
    assert task.answers_by is None
    assert "sensitivity" not in task.metrics
    assert TaskConfig(name="any").choosing_share == 0


def test_a_class_that_is_not_there_is_not_scored() -> None:
    scores = decided(np.array([[3.0, 1.0], [0.0, 0.0]]))
    assert scores["specificity"] == 0.75
    assert math.isnan(scores["sensitivity"])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.2])
def test_a_share_that_leaves_nobody_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"task\.threshold_share"):
        task_with(share)


def test_more_than_two_classes_have_no_one_threshold() -> None:
    with pytest.raises(ValueError, match="there are 3"):
        ClassificationConfig(
            name="classification", classes=["a", "b", "c"], out_channels=3, threshold_share=0.2
        )


LABELS = ["mass", "nodule", "hernia"]


def several(share: float | None) -> Task:
    config = MultilabelConfig(
        name="multilabel", classes=LABELS, out_channels=3, threshold_share=share
    )
    return build_multilabel(config)


def sums_of_labels(task: Task, probabilities: torch.Tensor, truth: torch.Tensor) -> Sums:
    return task.patient_sums(
        [task.measure(p, t, ()) for p, t in zip(probabilities, truth, strict=True)]
    )


def drawn(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities [count, 3] that know the labels, each on a scale of its own, and the truth."""
    draws = torch.Generator().manual_seed(seed)
    truth = (torch.rand(count, 3, generator=draws) < torch.tensor([0.5, 0.3, 0.2])).long()
    logits = torch.randn(count, 3, generator=draws) + 2 * truth + torch.tensor([-5.0, 0.0, 4.0])
    return logits.sigmoid(), truth


@given(st.integers(0, 999))
def test_each_label_is_answered_from_the_score_that_is_best_for_those_who_choose(seed: int) -> None:
    task = several(0.2)
    assert task.answers_by is not None
    probabilities, truth = drawn(seed)
    chosen = task.answers_by(task, sums_of_labels(task, probabilities, truth))
    found = chosen.score(sums_of_labels(chosen, probabilities, truth))
    for place, label in enumerate(LABELS):
        p, having = probabilities[:, place].numpy(), truth[:, place].numpy() == 1
        bins = np.array([score_bin(np.array([1 - x, x]), 1) for x in p.tolist()])
        naive = max(
            (bins[having] >= least).mean() + (bins[~having] < least).mean()
            for least in {*bins.tolist(), bins.max() + 1}
        )
        told = found[f"sensitivity_{label}"] + found[f"specificity_{label}"]
        assert told == pytest.approx(naive)
    for name in ("sensitivity", "specificity"):
        each = [found[f"{name}_{label}"] for label in LABELS]
        assert found[name] == pytest.approx(np.mean(each))


def test_the_thresholds_of_some_serve_others_who_are_scored_on_the_same_scale() -> None:
    task = several(0.2)
    assert task.answers_by is not None
    chosen = task.answers_by(task, sums_of_labels(task, *drawn(0, 300)))
    usual, own = (of.score(sums_of_labels(of, *drawn(1, 300))) for of in (task, chosen))
    assert own["balanced_accuracy"] > usual["balanced_accuracy"] + 0.15
    assert own["auroc"] == usual["auroc"]
    assert set(own) == set(task.metrics)


def test_a_label_that_nobody_who_chooses_has_keeps_the_usual_threshold() -> None:
    task = several(0.2)
    assert task.answers_by is not None
    probabilities, truth = drawn(2)
    truth[:, 2] = 0
    chosen = task.answers_by(task, sums_of_labels(task, probabilities, truth))
    image, none = torch.tensor([0.01, 0.4, 0.49]), torch.zeros(3, dtype=torch.int64)
    assert chosen.measure(image, none, ())["confusion"][2, 0].tolist() == [1, 0]
    assert chosen.measure(image + 0.02, none, ())["confusion"][2, 0].tolist() == [0, 1]


def test_without_those_who_choose_several_labels_are_told_as_they_were() -> None:
    task = several(None)
    assert task.answers_by is None
    assert not any(name.startswith("sensitivity") for name in task.metrics)


def test_a_share_of_several_labels_that_leaves_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold_share=1 leaves nobody to train on"):
        several(1.0)
