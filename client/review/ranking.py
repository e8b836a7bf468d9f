"""What a model says of each image of a site, beside what the site's own labels say.

Shape suffixes: K classes, S spatial axes of the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.cases import classes_drawn, labels_of
from client.manifest import Row
from client.prediction.answers import Answer, answers_to
from client.prediction.passes import Passes
from client.readers import BadFileError, Picture
from client.row_images import image_for
from common.tasks.multilabel import MultilabelConfig
from common.tasks.segmentation import SegmentationConfig, patient_sums

BY_WORST, BY_UNSURE = "worst", "unsure"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """An image, the model's answer and the site's own, on the voxels of the file."""

    picture: Picture
    answer: Answer
    truth_S: NDArray[np.int64] | None
    """Class indices of the site's mask; None without one that can be used."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One image in the list."""

    number: int
    """Its place in the manifest."""
    row: Row
    why_not: str
    """Why it cannot be looked at; empty where it can."""
    entropy: float | None
    agreement: float | None
    """How far the model says what the site's label says, 0 to 1: the Dice overlap, mean over the
    classes, or the probability of the label, of several labels the mean over all that there are;
    None without a label."""
    said: str
    """The model's class; empty of a mask."""


def look(row: Row, passes: Passes) -> Looked:
    """Return an image with both answers.

    Raises:
        BadFileError: the image cannot be used. A mask that cannot counts as none.
    """
    picture = image_for(row.image, passes.study.data)
    (answer,) = answers_to([picture], passes)
    return Looked(picture=picture, answer=answer, truth_S=_truth(row, picture, passes))


def ranked(
    rows: Sequence[Row], passes: Passes, on_row: Callable[[], None] = lambda: None
) -> list[Ranked]:
    """Return all images of a site in the order of the manifest; on_row is called after each."""
    found = []
    for number, row in enumerate(rows):
        found.append(rank(number, row, passes))
        on_row()
    return found


def rank(number: int, row: Row, passes: Passes) -> Ranked:
    """Return one image with its figures."""
    empty = Ranked(number=number, row=row, why_not="", entropy=None, agreement=None, said="")
    try:
        seen = look(row, passes)
    except BadFileError as error:
        return replace(empty, why_not=f"{error.reason}; {error.remedy}")
    return replace(
        empty,
        entropy=seen.answer.entropy,
        agreement=_agreement(row, seen, passes),
        said=seen.answer.label or "",
    )


def in_order(cases: Sequence[Ranked], by: str) -> list[Ranked]:
    """Return the images, the worst or the least sure first; those without the figure last."""

    def place(case: Ranked) -> tuple[bool, float, int]:
        figure = case.agreement if by == BY_WORST else case.entropy
        signed = 0.0 if figure is None else (figure if by == BY_WORST else -figure)
        return figure is None, signed, case.number

    return sorted(cases, key=place)


def _truth(row: Row, picture: Picture, passes: Passes) -> NDArray[np.int64] | None:
    task = passes.task.config
    if not isinstance(task, SegmentationConfig):
        return None
    try:
        classes: NDArray[np.int64] = classes_drawn(row, row.image, picture, task)[0]
    except BadFileError:
        return None
    return classes


def _agreement(row: Row, seen: Looked, passes: Passes) -> float | None:
    config = passes.task.config
    if isinstance(config, MultilabelConfig):
        return _agreement_of_labels(row, seen, config)
    if seen.answer.classes_S is None:
        return seen.answer.scores.get(row.label or "")
    if seen.truth_S is None:
        return None
    found, true = seen.answer.classes_S, seen.truth_S
    places = range(1, 1 + len(passes.task.config.classes))
    counts = {
        "overlap": np.array([np.sum((found == k) & (true == k)) for k in places], np.float64),
        "predicted": np.array([np.sum(found == k) for k in places], np.float64),
        "true": np.array([np.sum(true == k) for k in places], np.float64),
        "hd95_mm": np.full(len(places), np.nan),
    }
    return float(patient_sums([counts])["dice"].mean())


def _agreement_of_labels(row: Row, seen: Looked, task: MultilabelConfig) -> float | None:
    """Return the mean over the labels of the probability that each is there, or that it is not."""
    try:
        true = labels_of(row, task)
    except BadFileError:
        return None
    found = [seen.answer.scores[name] for name in task.classes]
    return float(np.mean([p if t else 1 - p for p, t in zip(found, true, strict=True)]))
