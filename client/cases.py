"""One row of a manifest made into samples, or into a BadFileError.

Shape suffixes: K samples of the file, C channels, S spatial axes, N all samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.content import digest_of
from client.manifest import Row
from client.readers import BadFileError, Picture, read_mask
from client.readers.registry import names_of_mask
from client.row_images import (
    Acquired,
    acquired_of,
    check_same_grid,
    image_of,
    images_of,
    samples_in,
)
from common.covariates import Covariates, encoded
from common.data_config import DataConfig
from common.forward import degraded, references
from common.models.late_fusion import with_covariates
from common.seeding import generator, seed
from common.tasks.classification import ClassificationConfig
from common.tasks.config import TaskConfig
from common.tasks.contrastive import beside_a_view
from common.tasks.multilabel import SEPARATOR, MultilabelConfig
from common.tasks.pretraining import PretrainingConfig, hidden, turned
from common.tasks.restoration import RestorationConfig
from common.tasks.segmentation import SegmentationConfig
from common.tasks.survival import RISK_LIMIT, SurvivalConfig
from common.tasks.unlabelled import UNLABELLED
from common.transforms import prepare


@dataclass(frozen=True, kw_only=True)
class Case:
    """The samples of one file, in the order of its slices."""

    images: Tensor
    """[K, C, *size], float32."""
    targets: Tensor
    """[K, 1, *size] int64 for segmentation, [K] int64 for classification, [K, labels] 0 or 1 int64
    for several labels, [K, 1 + references, *size] float32 for restoration, [K, 3] float32
    for survival, [K, 2, *size] float32 or [K] int64 for pre-training."""
    spacing_mm: tuple[float, ...]
    """After resampling; of a slice three numbers, the distance of the slices last."""
    acquired: Acquired
    labelled: bool = True
    """Whether somebody has said what the image shows, where a study needs that."""

    def unlabelled(self) -> "Case":
        """Return the case as if nobody had."""
        return replace(self, targets=torch.full_like(self.targets, UNLABELLED), labelled=False)


def read_case(row: Row, data: DataConfig, task: TaskConfig) -> Case:
    """Return the samples of one row.

    Where a study learns from images without labels their targets are UNLABELLED
    (common/tasks/unlabelled.py).

    Raises:
        BadFileError: whatever the image, the mask or the label has against being used.
        ValueError: a task that no file can be read for.
    """
    if isinstance(task, SegmentationConfig):
        return _segmentation_case(row, data, task)
    if isinstance(task, ClassificationConfig):
        if row.label is None and task.unlabelled is not None:
            return _labelled_case(row, data, torch.tensor(UNLABELLED)).unlabelled()
        return _labelled_case(row, data, torch.tensor(_class(row, task)))
    if isinstance(task, MultilabelConfig):
        return _labelled_case(row, data, torch.tensor(labels_of(row, task)))
    if isinstance(task, PretrainingConfig):
        return _unlabelled_case(row, data, task)
    if isinstance(task, SurvivalConfig):
        return _labelled_case(row, data, torch.tensor(_happened(row, task)))
    if isinstance(task, RestorationConfig):
        return _degraded_case(row, data, task)
    raise ValueError(
        f"task.name={task.name!r} has no way to read its targets; use a task of the registry"
    )


def images_in(row: Row, data: DataConfig, task: TaskConfig) -> Tensor:
    """Return [K, C, *size] of one row as a study's network would see them, labelled or not.

    Raises:
        BadFileError: whatever the image has against being used.
    """
    if isinstance(task, PretrainingConfig | RestorationConfig):
        # What the network sees is made of the image, and nobody labels it.
        return read_case(row, data, task).images
    return _clean(row, data)[0]


def _segmentation_case(row: Row, data: DataConfig, task: SegmentationConfig) -> Case:
    if row.mask is None and task.unlabelled is not None:
        return _unmarked_case(row, data)
    image = image_of(row, data)
    target_1S = classes_drawn(row, next(iter(images_of(row, data).values())), image, task)
    prepared, target, spacing_mm = prepare(data)(image.array_CS, target_1S, image.spacing_mm)
    assert target is not None
    return Case(
        images=samples_in(prepared, data),
        targets=samples_in(target, data),
        spacing_mm=spacing_mm,
        acquired=acquired_of(image),
    )


def _unmarked_case(row: Row, data: DataConfig) -> Case:
    images, spacing_mm, acquired = _clean(row, data)
    nothing = images[:, :1].long()
    case = Case(images=images, targets=nothing, spacing_mm=spacing_mm, acquired=acquired)
    return case.unlabelled()


def classes_drawn(
    row: Row, path: Path, image: Picture, task: SegmentationConfig
) -> NDArray[np.int64]:
    """Return the mask of an image as class indices [1, S] on the image's own voxels.

    path: of the image, or of its first sequence.

    Raises:
        BadFileError: there is none, or whatever it has against being used.
    """
    if row.mask is None:
        raise BadFileError(
            row.image, "has no mask", "name its mask in the manifest, or leave the image out"
        )
    mask = read_mask(row.mask, image)
    check_same_grid(row.mask, mask, path, image)
    return _class_indices(row.mask, _as_named(row.mask, mask.array_CS, task), task)


def _class(row: Row, task: ClassificationConfig) -> int:
    label = _label(row)
    if label not in task.classes:
        raise _unknown_label(row, label, task.classes)
    return task.classes.index(label)


def labels_of(row: Row, task: MultilabelConfig) -> list[int]:
    """Return 1 for each label that the image has, else 0.

    Raises:
        BadFileError: it has none, or one that the study does not have.
    """
    named = [word.strip() for word in _label(row).split(SEPARATOR)]
    if named == [task.no_label]:
        return [0] * len(task.classes)
    if task.no_label in named:
        raise BadFileError(
            row.image,
            f"has the label {task.no_label!r} beside others",
            "leave one of the two out",
        )
    for label in named:
        if label not in task.classes:
            raise _unknown_label(row, label, [*task.classes, task.no_label])
    return [int(label in named) for label in task.classes]


def _covariates(row: Row, asked: Covariates) -> list[float]:
    try:
        return encoded(row.covariates, asked)
    except ValueError as error:
        raise BadFileError(
            row.image,
            f"has {error}",
            "correct the cell, or empty it: the patient then takes part as one of whom it is "
            "unknown",
        ) from error


def _happened(row: Row, task: SurvivalConfig) -> list[float]:
    """Return time, event and the true risk, nan where nobody knows it."""
    time = _number_in(row, task.time_column)
    event = _number_in(row, task.event_column)
    if time < 0 or event not in (0.0, 1.0):
        raise BadFileError(
            row.image,
            f"has {task.time_column}={time:g} and {task.event_column}={event:g}",
            "write a time of 0 or more, and 1 where the event happened then, else 0",
        )
    truth = math.nan if task.truth_column is None else _number_in(row, task.truth_column)
    if abs(truth) > RISK_LIMIT:
        raise BadFileError(
            row.image,
            f"has {task.truth_column}={truth:g}",
            f"write the true risk as a log-hazard from {-RISK_LIMIT:g} to {RISK_LIMIT:g}",
        )
    return [time, event, truth]


def _number_in(row: Row, column: str) -> float:
    cell = row.covariates.get(column, "")
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadFileError(
            row.image,
            f"has {cell!r} in the column {column!r}, and the study needs a number",
            "fill the cell, or leave the image out",
        )
    return number


def _label(row: Row) -> str:
    if row.label is None:
        raise BadFileError(
            row.image, "has no label", "name its label in the manifest, or leave the image out"
        )
    return row.label


def _unknown_label(row: Row, label: str, known: Sequence[str]) -> BadFileError:
    return BadFileError(
        row.image,
        f"has the label {label!r}, which the task does not have",
        f"correct it to one of: {', '.join(known)}",
    )


def _labelled_case(row: Row, data: DataConfig, target: Tensor) -> Case:
    """Return the samples of an image, all with the one target: a scalar, or [labels]."""
    image = image_of(row, data)
    prepared, _, spacing_mm = prepare(data)(image.array_CS, None, image.spacing_mm)
    images = samples_in(prepared, data)
    if data.covariates is not None:
        images = with_covariates(images, _covariates(row, data.covariates))
    return Case(
        images=images,
        targets=target.expand(len(images), *target.shape).clone(),
        spacing_mm=spacing_mm,
        acquired=acquired_of(image),
    )


def _degraded_case(row: Row, data: DataConfig, task: RestorationConfig) -> Case:
    """Return images degraded by the chance of patient and image, the same in every study."""
    clean, spacing_mm, acquired = _clean(row, data)
    draws = _draws("degraded", row, data)
    arrived = degraded(clean, task.forward, draws)
    targets = torch.cat([clean, *references(arrived, task.forward)], dim=1)
    return Case(images=arrived, targets=targets, spacing_mm=spacing_mm, acquired=acquired)


def _unlabelled_case(row: Row, data: DataConfig, task: PretrainingConfig) -> Case:
    """Return images with parts hidden, turned or beside a view, by chance of patient and image."""
    clean, spacing_mm, acquired = _clean(row, data)
    draws = _draws("unlabelled", row, data)
    nothing = torch.zeros(len(clean), dtype=torch.int64)
    if task.grey:
        images, targets = hidden(clean, task, draws)
    elif task.compares_images:
        images, targets = beside_a_view(clean, draws), nothing
    else:
        images, targets = turned(clean, nothing, draws)
    return Case(images=images, targets=targets, spacing_mm=spacing_mm, acquired=acquired)


def _draws(purpose: str, row: Row, data: DataConfig) -> torch.Generator:
    # Hospitals call other patients alike: what an image shows is its own.
    contents = [digest_of(file) for file in images_of(row, data).values()]
    return generator(seed(0, purpose, row.patient, *contents))


def _clean(row: Row, data: DataConfig) -> tuple[Tensor, tuple[float, ...], Acquired]:
    image = image_of(row, data)
    prepared, _, spacing_mm = prepare(data)(image.array_CS, None, image.spacing_mm)
    return samples_in(prepared, data), spacing_mm, acquired_of(image)


def _as_named(
    path: Path, labels_1S: NDArray[np.int64], task: SegmentationConfig
) -> NDArray[np.int64]:
    """Return a mask with the study's values where its file names each label as one of its classes.

    The numbers of a DICOM-SEG's segments run from 1 on, whatever the study's values are.
    """
    names = names_of_mask(path)
    if not names or not set(names.values()) <= set(task.classes):
        return labels_1S
    named = np.zeros_like(labels_1S)
    for number, name in names.items():
        named[labels_1S == number] = task.label_values[task.classes.index(name)]
    return named


def _class_indices(
    path: Path, labels_1S: NDArray[np.int64], task: SegmentationConfig
) -> NDArray[np.int64]:
    """Return 0 for background and 1 + i where the file has task.label_values[i]."""
    indices = np.zeros_like(labels_1S)
    known = labels_1S == 0
    for index, value in enumerate(task.label_values, start=1):
        here = labels_1S == value
        indices[here] = index
        known |= here
    if not known.all():
        unknown = np.unique(labels_1S[~known])
        told = ", ".join(str(value) for value in unknown[:5])
        raise BadFileError(
            path,
            f"holds {len(unknown)} label values that the task does not list ({told}"
            f"{', ...' if len(unknown) > 5 else ''})",
            f"correct the mask to 0 and task.label_values={list(task.label_values)}",
        )
    return indices
