"""Several findings in an image, each there or not: a sigmoid a label (CheXNet's 14 labels).

Legend of shapes: B images, K labels, L score bins. Each label is ranked, decided and calibrated by
itself, so a label that few images have is not lost in one that many have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import Tensor

from common.checks import one_of
from common.tasks.config import EMPTY_CELLS, TaskConfig
from common.tasks.losses import OF_LABELS, loss_of
from common.tasks.ranking import (
    CALIBRATION_BINS,
    SCORE_BINS,
    area_under_roc,
    balanced_accuracy,
    confidence_bin,
    expected_calibration_error,
    in_wide_bins,
    mean_of_defined,
    nearest_counts,
    patient_sums,
    score_bin,
    shares,
)
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite
from common.tasks.threshold import (
    best_bin,
    check_share,
    decided_labels,
    decisions,
    label_decisions,
)

SEPARATOR = "|"
"""Between the labels of an image, as in the list of ChestX-ray14."""


@dataclass(frozen=True, kw_only=True)
class MultilabelConfig(TaskConfig):
    """Settings of a classification where an image may have any of the labels, or none."""

    classes: list[str] = field(default_factory=lambda: ["effusion", "infiltration"])
    """Names of the labels, as they stand in the label column with | between them."""
    no_label: str = "none"
    """What stands in the label column of an image that has none of them."""
    headline: str = "auroc"
    """auroc, balanced_accuracy, ece, or auroc_LABEL of one label; with threshold_share also
    sensitivity and specificity, of all or with _LABEL of one."""
    threshold_share: float | None = None
    """Share of a site's training patients, above 0 and below 1, who do not train but choose the
    score from which the site answers with a label, each label's own (the best Youden index). null:
    a label that is more probable than not is the answer."""

    @property
    def even_answer(self) -> float:
        """The probability of each label that says nothing."""
        return 0.5

    @property
    def choosing_share(self) -> float:
        """Share of a site's training patients who choose the thresholds."""
        return self.threshold_share or 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.threshold_share)
        if not self.classes:
            raise ValueError("task.classes=[] leaves nothing to find; name one label or more")
        word = self.no_label
        if word in (*self.classes, *EMPTY_CELLS) or SEPARATOR in word or word != word.strip():
            raise ValueError(
                f"task.no_label={word!r} cannot stand for an image without a label; give a word "
                f"that is no label and not {', '.join(EMPTY_CELLS[1:])}, without {SEPARATOR} and "
                "spaces around it"
            )
        if self.out_channels != len(self.classes):
            raise ValueError(
                f"task.out_channels={self.out_channels} does not fit {len(self.classes)} labels; "
                f"give {len(self.classes)}"
            )
        known = multilabel_metrics(self.classes, self.threshold_share is not None)
        one_of(known, **{"task.headline": self.headline})
        self.check_loss(OF_LABELS)


def multilabel_metrics(labels: Sequence[str], threshold: bool = False) -> dict[str, Metric]:
    """Return the metrics by name; threshold: whether patients choose one a label."""
    ranked = "chance that an image with {} is ranked above one without (ROC area)."
    return {
        "auroc": Metric(True, "", f"{ranked.format('a label')[:-1]}, mean over the labels."),
        "balanced_accuracy": Metric(
            True, "", "share of right answers, mean over with and without, and over the labels."
        ),
        "ece": Metric(False, "", "expected calibration error: confidence against accuracy."),
        **{f"auroc_{label}": Metric(True, "", ranked.format(label)) for label in labels},
        **(label_decisions(labels) if threshold else {}),
    }


def build_multilabel(config: MultilabelConfig) -> Task:
    """Return the task. Targets are 0 or 1 a label, int64: [B, K] of a batch, [K] of one image.

    Sums: `scores` [K, 2, L], images by label, by whether they have it, and by the bin of the logit;
    `confusion` [K, 2, 2], images by label, truth and answer; `calibration` [3, 15], answers, right
    answers and summed confidence by the bin of the confidence.
    """
    criterion = loss_of(OF_LABELS, config.loss, config.out_channels)
    areas = [f"auroc_{label}" for label in config.classes]
    means = dict.fromkeys(("auroc", "balanced_accuracy"), areas)
    chosen = config.threshold_share is not None
    if chosen:
        means |= {name: [f"{name}_{label}" for label in config.classes] for name in decisions()}

    def score(sums: Sums) -> dict[str, float]:
        values = _score(sums, config.classes)
        return values | (decided_labels(sums["confusion"], config.classes) if chosen else {})

    return Task(
        config=config,
        metrics=multilabel_metrics(config.classes, chosen),
        loss=lambda logits, target: criterion(logits.float(), target),
        activate=lambda logits: logits.float().sigmoid(),
        measure=measure,
        patient_sums=patient_sums,
        score=score,
        # A label has two tables of shares, of which two patients' differ by at most sqrt(2) each.
        bounded=Bounded(bounded_row, math.sqrt(2 * 2 * len(config.classes)), restored),
        means=means,
        answers_by=by_thresholds if chosen else None,
    )


def by_thresholds(task: Task, sums: Sums) -> Task:
    """Return the task with each label's threshold that is best for the patients of the sums.

    Of a label that all of these have, or none, it is the usual one.
    """
    least = [best_bin(without, having) for without, having in sums["scores"]]
    return replace(task, measure=partial(measure, least=least))


def measure(
    probabilities: Tensor,
    target: Tensor,
    spacing_mm: Sequence[float],
    least: Sequence[int | None] | None = None,
) -> Sums:
    """Return the sums of one image.

    probabilities, target: [K]. spacing_mm is part of every task's form. least: the bin of the score
    from which each label is the answer; None: where it is more probable than not.

    Raises:
        ValueError: a probability is not finite, or the shapes do not fit.
    """
    check_finite(probabilities)
    if probabilities.ndim != 1 or probabilities.shape != target.shape:
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} and a target of shape "
            f"{tuple(target.shape)} are not one image's; give [K] of both"
        )
    scores = np.zeros((len(target), 2, SCORE_BINS))
    confusion = np.zeros((len(target), 2, 2))
    calibration = np.zeros((3, CALIBRATION_BINS))
    for label, (p, truth) in enumerate(zip(probabilities.tolist(), target.tolist(), strict=True)):
        answer, confidence = int(p >= 0.5), max(p, 1 - p)
        at, from_bin = score_bin(np.array([1 - p, p]), 1), None if least is None else least[label]
        scores[label, truth, at] = 1
        confusion[label, truth, answer if from_bin is None else int(at >= from_bin)] = 1
        calibration[:, confidence_bin(confidence)] += 1, truth == answer, confidence
    return {"scores": scores, "confusion": confusion, "calibration": calibration}


def _score(sums: Sums, labels: Sequence[str]) -> dict[str, float]:
    """Return the metrics; means are over the labels that have both images with and without."""
    areas = [area_under_roc(without, having) for without, having in sums["scores"]]
    values = {
        "auroc": mean_of_defined(areas),
        "balanced_accuracy": mean_of_defined(
            [balanced_accuracy(table) for table in sums["confusion"]]
        ),
        **{f"auroc_{label}": area for label, area in zip(labels, areas, strict=True)},
    }
    if "calibration" in sums:
        values["ece"] = expected_calibration_error(sums["calibration"])
    return values


def bounded_row(sums: Sums) -> Sums:
    """Return the mean over a patient's images, a label after the other: as a classification's."""
    return {
        "scores": np.stack([shares(of_label) for of_label in in_wide_bins(sums["scores"])]),
        "confusion": np.stack([shares(of_label) for of_label in sums["confusion"]]),
    }


def restored(sums: Sums, patients: int) -> Sums:
    """Return the possible totals that are nearest to those with noise."""
    return {
        name: np.stack([nearest_counts(of_label, patients) for of_label in sums[name]])
        for name in ("scores", "confusion")
    }
