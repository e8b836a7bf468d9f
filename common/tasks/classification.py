"""Classification: one class per image. Ranking, decisions and calibration from additive sums.

Legend of shapes: B images, K classes, S ranked classes (one of two, or all of more), L score bins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import Tensor

from common.checks import in_range, one_of
from common.tasks.config import TaskConfig
from common.tasks.losses import OF_IMAGES, loss_of
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
    sensitivity,
    shares,
)
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite
from common.tasks.tempered import (
    MOST_TEMPERATURES,
    TEMPERATURE_RANGE,
    metric_of,
    told_at,
)
from common.tasks.threshold import best_bin, check_share, decided, decisions
from common.tasks.unlabelled import guess_cross_entropy, with_unlabelled


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(TaskConfig):
    """Settings of a classification."""

    classes: list[str] = field(default_factory=lambda: ["normal", "pneumonia"])
    """Names of the classes, as they stand in the label column; of two, the second is the finding
    that sensitivity and specificity speak of."""
    headline: str = "auroc"
    """auroc, balanced_accuracy, ece, or with two classes sensitivity_at_95_specificity; with
    threshold_share also sensitivity and specificity."""
    threshold_share: float | None = None
    """With two classes: share of a site's training patients, above 0 and below 1, who do not train
    but choose the score from which the site answers with the second class (the best Youden index).
    null: the class that is more probable is the answer."""

    temperature: float | None = None
    """What the logits are divided by before they become probabilities, as an earlier study found it
    (result.json's temperature); above 1 the answers are less sure. null: 1."""
    temperatures: list[float] | None = None
    """Temperatures at which the sites tell the likelihood, so that the best for all of their
    patients is found (common/tasks/tempered.py), 2 to 16; null: none."""

    @property
    def one_class(self) -> bool:
        """An image is of one class."""
        return True

    @property
    def guessable(self) -> bool:
        """A class an image."""
        return True

    @property
    def choosing_share(self) -> float:
        """Share of a site's training patients who choose the threshold."""
        return self.threshold_share or 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) < 2:
            raise ValueError(
                f"task.classes={list(self.classes)} leaves nothing to tell apart; name two or more"
            )
        if self.out_channels != len(self.classes):
            raise ValueError(
                f"task.out_channels={self.out_channels} does not fit {len(self.classes)} classes; "
                f"give {len(self.classes)}"
            )
        self._check_threshold()
        self._check_temperatures()
        known = classification_metrics(len(self.classes), self.threshold_share is not None)
        one_of(known, **{"task.headline": self.headline})
        self.check_loss(OF_IMAGES)

    def _check_temperatures(self) -> None:
        if self.temperature is not None:
            in_range(*TEMPERATURE_RANGE, **{"task.temperature": self.temperature})
        if self.temperatures is None:
            return
        each = {f"task.temperatures[{place}]": t for place, t in enumerate(self.temperatures)}
        in_range(*TEMPERATURE_RANGE, **each)
        names = {metric_of(temperature) for temperature in self.temperatures}
        # A likelihood at many temperatures would tell more of a patient than which is best.
        if not 2 <= len(names) == len(self.temperatures) <= MOST_TEMPERATURES:
            raise ValueError(
                f"task.temperatures={list(self.temperatures)} are too few, too many or not told "
                f"apart; give 2 to {MOST_TEMPERATURES} different ones"
            )

    def _check_threshold(self) -> None:
        check_share(self.threshold_share)
        if self.threshold_share is None:
            return
        if self.temperatures is not None:
            raise ValueError(
                f"task.temperatures={list(self.temperatures)}: a site's own threshold and one "
                "temperature for all are two ways to answer; set one of them to null"
            )
        if len(self.classes) != 2:
            raise ValueError(
                f"task.threshold_share={self.threshold_share:g} chooses one threshold between two "
                f"classes, and there are {len(self.classes)}; set it to null, or choose "
                "task=multilabel, which has one a label"
            )


def classification_metrics(classes: int, threshold: bool = False) -> dict[str, Metric]:
    """Return the metrics of a classification into so many classes, by name.

    threshold: whether patients choose one, so that what it finds and spares is worth telling.
    """
    metrics = {
        "auroc": Metric(
            True, "", "chance that a positive image is ranked above a negative one (ROC area)."
        ),
        "balanced_accuracy": Metric(True, "", "share of right answers, mean over the classes."),
        "sensitivity_at_95_specificity": Metric(
            True, "", "share of positives found where at most 5 % of the negatives are called."
        ),
        "ece": Metric(False, "", "expected calibration error: confidence against accuracy."),
    }
    if classes > 2:
        del metrics["sensitivity_at_95_specificity"]
    return {**metrics, **decisions()} if threshold else metrics


def build_classification(config: ClassificationConfig) -> Task:
    """Return the task. Targets are class indices, int64: [B] of a batch, a scalar of one image.

    Sums: `scores` [S, 2, L], images by ranked class, by whether that class is the truth, and by the
    bin of the logit of its probability; `confusion` [K, K], images by truth and answer;
    `calibration` [3, 15], images, right answers and summed confidence by the bin of the confidence.
    All are counts or totals over images, so those of two sets of patients add up. With few patients
    a histogram shows single patients, so they stay at the site.
    """
    criterion = loss_of(OF_IMAGES, config.loss, config.out_channels)
    chosen, asked = config.threshold_share is not None, config.unlabelled
    loss = criterion
    if asked is not None:
        loss = with_unlabelled(criterion, guess_cross_entropy, asked)
    task = Task(
        config=config,
        metrics=classification_metrics(len(config.classes), chosen),
        loss=lambda logits, target: loss(logits.float(), target),
        activate=lambda logits: (logits.float() / (config.temperature or 1.0)).softmax(dim=1),
        measure=measure,
        patient_sums=patient_sums,
        score=decided_score if chosen else score,
        bounded=Bounded(bounded_row, sensitivity_of(len(config.classes)), restored),
        answers_by=by_threshold if chosen else None,
    )
    if config.temperatures is None:
        return task
    return told_at(task, config.temperatures, config.temperature or 1.0)


def by_threshold(task: Task, sums: Sums) -> Task:
    """Return the task with the threshold that is best for the patients of the sums.

    Where these have one class only, it is the usual one.
    """
    bin_chosen = best_bin(*sums["scores"][0])
    return task if bin_chosen is None else replace(task, measure=partial(measure, least=bin_chosen))


def measure(
    probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float], least: int | None = None
) -> Sums:
    """Return the sums of one image.

    probabilities: [K]. target: one class index. spacing_mm is part of every task's form; a label
    has no size. least: of two classes, the bin of the score from which the second is the answer;
    None: the more probable one is.

    Raises:
        ValueError: a probability is not finite, or the shapes do not fit.
    """
    check_finite(probabilities)
    if probabilities.ndim != 1 or target.numel() != 1:
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} and a target of shape "
            f"{tuple(target.shape)} are not one image's; give [K] and one class index"
        )
    p = probabilities.detach().cpu().double().numpy()
    truth, answer, classes = int(target), int(p.argmax()), len(p)
    scores = np.zeros((len(_ranked(classes)), 2, SCORE_BINS))
    for row, ranked in enumerate(_ranked(classes)):
        scores[row, int(truth == ranked), score_bin(p, ranked)] = 1
    called = answer if least is None else int(score_bin(p, 1) >= least)
    confusion = np.zeros((classes, classes))
    confusion[truth, called] = 1
    calibration = np.zeros((3, CALIBRATION_BINS))
    calibration[:, confidence_bin(p[answer])] = 1, truth == answer, p[answer]
    return {"scores": scores, "confusion": confusion, "calibration": calibration}


def score(sums: Sums) -> dict[str, float]:
    """Return the metrics of the images that the sums are over.

    With more than two classes auroc is the mean over the classes, each against the rest, that have
    both positives and negatives. Sums that noise has covered have no calibration.
    """
    areas = [area_under_roc(negatives, positives) for negatives, positives in sums["scores"]]
    values = {
        "auroc": mean_of_defined(areas),
        "balanced_accuracy": balanced_accuracy(sums["confusion"]),
    }
    if "calibration" in sums:
        values["ece"] = expected_calibration_error(sums["calibration"])
    if len(sums["confusion"]) == 2:
        negatives, positives = sums["scores"][0]
        values["sensitivity_at_95_specificity"] = sensitivity(negatives, positives)
    return values


def decided_score(sums: Sums) -> dict[str, float]:
    """Return the metrics, with those of what a threshold decides."""
    return {**score(sums), **decided(sums["confusion"])}


def bounded_row(sums: Sums) -> Sums:
    """Return the mean over a patient's images: `scores` [S, 2, 8] in wide bins, and `confusion`.

    Each histogram and the confusion are then shares that add up to 1, however many images a patient
    has. The calibration is left out: it sums |distances|, and of noise these do not cancel.
    """
    return {
        "scores": np.stack([shares(of_class) for of_class in in_wide_bins(sums["scores"])]),
        "confusion": shares(sums["confusion"]),
    }


def sensitivity_of(classes: int) -> float:
    """Return the largest L2 distance of two patients' bounded rows.

    A row has S histograms and a confusion; two tables of shares differ by at most sqrt(2).
    """
    return math.sqrt(2 * (len(_ranked(classes)) + 1))


def restored(sums: Sums, patients: int) -> Sums:
    """Return the possible totals that are nearest to those with noise.

    Every table's shares add up to 1 a patient, and the number of patients is public.
    """
    return {
        "scores": np.stack([nearest_counts(of_class, patients) for of_class in sums["scores"]]),
        "confusion": nearest_counts(sums["confusion"], patients),
    }


def _ranked(classes: int) -> list[int]:
    # Of two classes the second's ranking is the first's, turned round.
    return [1] if classes == 2 else list(range(classes))
