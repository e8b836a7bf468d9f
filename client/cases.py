"""One row of a manifest made into samples, or into a BadFileError.

Shape suffixes: K samples of the file, C channels, S spatial axes, N all samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.manifest import Row
from client.readers import BadFileError, Picture, read_image, read_mask
from common.data_config import DataConfig
from common.tasks.classification import ClassificationConfig
from common.tasks.config import TaskConfig
from common.tasks.multilabel import SEPARATOR, MultilabelConfig
from common.tasks.segmentation import SegmentationConfig
from common.transforms import prepare

_TOLERANCE = 0.5
"""Voxels by which a corner of mask and image may lie apart: below it each voxel's nearest one in
the other grid is its own. Rounded headers of real scanners differ by up to 0.15."""


@dataclass(frozen=True, kw_only=True)
class Acquired:
    """How a file came, before it was resampled."""

    spacing_mm: tuple[float, ...]
    size: tuple[int, ...]
    """Voxels along each axis."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The samples of one file, in the order of its slices."""

    images: Tensor
    """[K, C, *size], float32."""
    targets: Tensor
    """[K, 1, *size] int64 for segmentation, [K] int64 for classification, [K, labels] 0 or 1 int64
    for several labels."""
    spacing_mm: tuple[float, ...]
    """After resampling; of a slice three numbers, the distance of the slices last."""
    acquired: Acquired


def read_case(row: Row, data: DataConfig, task: TaskConfig) -> Case:
    """Return the samples of one row.

    Raises:
        BadFileError: whatever the image, the mask or the label has against being used.
        ValueError: a task that no file can be read for.
    """
    if isinstance(task, SegmentationConfig):
        return _segmentation_case(row, data, task)
    if isinstance(task, ClassificationConfig):
        return _labelled_case(row, data, torch.tensor(_class(row, task)))
    if isinstance(task, MultilabelConfig):
        return _labelled_case(row, data, torch.tensor(_labels(row, task)))
    raise ValueError(
        f"task.name={task.name!r} has no way to read its targets; use a task of the registry"
    )


def _segmentation_case(row: Row, data: DataConfig, task: SegmentationConfig) -> Case:
    image = image_for(row.image, data)
    target_1S = classes_drawn(row, image, task)
    prepared, target, spacing_mm = prepare(data)(image.array_CS, target_1S, image.spacing_mm)
    assert target is not None
    return Case(
        images=samples_in(prepared, data),
        targets=samples_in(target, data),
        spacing_mm=spacing_mm,
        acquired=_acquired(image),
    )


def classes_drawn(row: Row, image: Picture, task: SegmentationConfig) -> NDArray[np.int64]:
    """Return the mask of an image as class indices [1, S] on the image's own voxels.

    Raises:
        BadFileError: there is none, or whatever it has against being used.
    """
    if row.mask is None:
        raise BadFileError(
            row.image, "has no mask", "name its mask in the manifest, or leave the image out"
        )
    mask = read_mask(row.mask, image)
    check_same_grid(row, image, mask)
    return _class_indices(row.mask, mask.array_CS, task)


def _class(row: Row, task: ClassificationConfig) -> int:
    label = _label(row)
    if label not in task.classes:
        raise _unknown_label(row, label, task.classes)
    return task.classes.index(label)


def _labels(row: Row, task: MultilabelConfig) -> list[int]:
    """Return 1 for each label that the image has."""
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
    image = image_for(row.image, data)
    prepared, _, spacing_mm = prepare(data)(image.array_CS, None, image.spacing_mm)
    images = samples_in(prepared, data)
    return Case(
        images=images,
        targets=target.expand(len(images), *target.shape).clone(),
        spacing_mm=spacing_mm,
        acquired=_acquired(image),
    )


def image_for(path: Path, data: DataConfig) -> Picture:
    """Return an image that the study can use, before anything is done to it.

    Raises:
        BadFileError: as read_image, or it has fewer axes than the study's samples.
    """
    image = read_image(path, data.channels)
    if len(image.spacing_mm) < data.spatial_dims:
        raise BadFileError(
            path,
            "is a 2-D picture, and the study works on volumes (data.spatial_dims=3)",
            "leave it out, or take part in a study with data.spatial_dims=2",
        )
    return image


def _acquired(image: Picture) -> Acquired:
    return Acquired(spacing_mm=tuple(image.spacing_mm), size=tuple(image.array_CS.shape[1:]))


def samples_in(prepared_CS: Tensor, data: DataConfig) -> Tensor:
    """Return [K, C, *size]: each axial slice of a volume in a 2-D study, else the one sample."""
    if prepared_CS.ndim - 1 > data.spatial_dims:
        return prepared_CS.movedim(-1, 0).contiguous()
    return prepared_CS[None]


def check_same_grid(row: Row, image: Picture, mask: Picture) -> None:
    """Raise BadFileError unless image and mask have one shape and lie at one place."""
    assert row.mask is not None
    ours, theirs = image.array_CS.shape[1:], mask.array_CS.shape[1:]
    if ours != theirs:
        raise BadFileError(
            row.mask,
            f"has the shape {theirs}, its image {row.image} has {ours}",
            "draw or resample the mask on the grid of its image",
        )
    if image.affine is None or mask.affine is None:
        return
    ends = [(0, n - 1) for n in ours]
    corners = np.stack([grid.ravel() for grid in np.meshgrid(*ends)])
    apart_mm = (image.affine - mask.affine) @ np.vstack([corners, np.ones(corners.shape[1])])
    largest_mm = float(np.linalg.norm(apart_mm[:3], axis=0).max())
    if largest_mm > _TOLERANCE * min(image.spacing_mm):
        raise BadFileError(
            row.mask,
            f"lies up to {largest_mm:.3g} mm away from its image {row.image} (other affine)",
            "resample the mask to its image, or correct the header that is wrong",
        )


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
