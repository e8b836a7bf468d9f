"""Segmentation: one class per voxel. Dice, and the surface distance in millimetres.

Legend of shapes: B images, K classes with the background first, C = K - 1 foreground classes,
... the spatial axes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from common.checks import one_of, positive
from common.tasks.config import TaskConfig
from common.tasks.losses import OF_VOXELS, Loss, loss_of
from common.tasks.one_output import of_both
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite
from common.tasks.unlabelled import guess_cross_entropy, with_unlabelled

LARGEST_DISTANCE_MM = 1000.0
"""Farther apart than the ends of a body's image: a site tells no distance beyond."""
_COUNTS = ("overlap", "predicted", "true")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(TaskConfig):
    """Settings of a segmentation."""

    label_values: list[int] = field(default_factory=list)
    """What stands in a mask file for each class, in the order of `classes`; 0 is background."""
    headline: str = "dice"
    """dice, dice_<class> or hd95_mm."""

    @property
    def dense(self) -> bool:
        """An answer a voxel."""
        return True

    @property
    def guessable(self) -> bool:
        """A class a voxel."""
        return True

    @classmethod
    def outputs(cls, out_channels: int) -> tuple[int, ...]:
        """Of one class two, or its own alone (common/tasks/one_output.py)."""
        return (1, 2) if out_channels == 2 else (out_channels,)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{f"task.label_values[{i}]": value for i, value in enumerate(self.label_values)})
        if not self.classes:
            raise ValueError("task.classes=[] has nothing to segment; name one class or more")
        if len(self.label_values) != len(self.classes) or (
            len(set(self.label_values)) != len(self.label_values)
        ):
            raise ValueError(
                f"task.label_values={list(self.label_values)} does not give each of "
                f"task.classes={list(self.classes)} a value of its own; give one value per class"
            )
        if self.out_channels != 1 + len(self.classes):
            raise ValueError(
                f"task.out_channels={self.out_channels} does not fit {len(self.classes)} classes "
                f"and the background; give {1 + len(self.classes)}"
            )
        one_of(segmentation_metrics(self.classes), **{"task.headline": self.headline})
        self.check_loss(OF_VOXELS)


def segmentation_metrics(classes: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of a segmentation by name."""
    of_each = {
        f"dice_{name}": Metric(True, "", f"Dice overlap of {name}, mean over patients.")
        for name in classes
    }
    return {
        "dice": Metric(True, "", "Dice overlap, mean over classes and patients."),
        **of_each,
        "hd95_mm": Metric(
            False,
            "mm",
            "95th percentile of the distance between the surfaces, mean over the classes and "
            "patients where both surfaces exist.",
            high=LARGEST_DISTANCE_MM,
        ),
    }


def build_segmentation(config: SegmentationConfig) -> Task:
    """Return the task. Targets are class indices, int64: [B, 1, ...] of a batch, [1, ...] of one.

    Logits are a channel a class, or of one class its own alone (common/tasks/one_output.py).

    Sums, each [C]: `dice`, the patients' Dice values; `patients`, how many they are;
    `hd95_mm`, the patients' surface distances; `hd95_patients`, how many have one. They are totals
    over patients, so those of two sets of patients add up; they describe single patients where the
    set is small, so they stay at the site.
    """
    criterion = loss_of(OF_VOXELS, config.loss, config.out_channels)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        # Float32 also under autocast: a sum over the voxels loses digits in bfloat16.
        return supervised(_of_classes(criterion), logits.float(), target)

    def of_guesses(logits: Tensor, target: Tensor) -> Tensor:
        return supervised(_of_classes(guess_cross_entropy), logits.float(), target)

    asked = config.unlabelled
    return Task(
        config=config,
        metrics=segmentation_metrics(config.classes),
        loss=loss if asked is None else with_unlabelled(loss, of_guesses, asked),
        activate=lambda logits: of_both(logits.float()).softmax(dim=1),
        measure=measure,
        patient_sums=patient_sums,
        score=lambda sums: score(sums, config.classes),
        bounded=Bounded(bounded_row, math.sqrt(len(config.classes)), restored),
    )


def supervised(
    criterion: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor
) -> Tensor:
    """Return the loss; of logits [B, D, K, ...] at D depths the mean with weights 1, 1/2, 1/4 ...

    Deep supervision as in nnU-Net (Isensee et al., Nature Methods 2021), the finest depth first.
    """
    if logits.ndim == target.ndim:
        return criterion(logits, target)
    weights = [0.5**depth for depth in range(logits.shape[1])]
    losses = [w * criterion(of, target) for w, of in zip(weights, logits.unbind(1), strict=True)]
    return torch.stack(losses).sum() / sum(weights)


def measure(probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float]) -> Sums:
    """Return the record of one image or volume, each [C]: voxel counts, and the surface distance.

    probabilities: [K, ...]. target: [1, ...], int64. spacing_mm: one per spatial axis.
    `hd95_mm` is nan for a class that the target or the prediction lacks: there is no surface then.

    Raises:
        ValueError: a probability is not finite, or the shapes or the spacing do not fit.
    """
    check_finite(probabilities)
    spatial = tuple(probabilities.shape[1:])
    if tuple(target.shape) != (1, *spatial) or len(spacing_mm) != len(spatial):
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} do not go with a target of shape "
            f"{tuple(target.shape)} and spacing_mm={list(spacing_mm)}; give the target as "
            f"{[1, *spatial]} and one spacing per spatial axis"
        )
    classes = probabilities.shape[0]
    predicted = _foreground(probabilities.argmax(dim=0).cpu(), classes)
    true = _foreground(target[0].cpu(), classes)
    return {
        "overlap": _voxels(predicted & true),
        "predicted": _voxels(predicted),
        "true": _voxels(true),
        "hd95_mm": _hd95_mm(predicted, true, spacing_mm),
    }


def patient_sums(records: Sequence[Sums]) -> Sums:
    """Return the sums of one patient from the records of all the patient's images.

    Dice = 2 |P and T| / (|P| + |T|) (Dice, Ecology 1945) over the voxels of all images together, so
    that a slice counts by its size. A class that is in no image and was found in none has Dice 1:
    the answer is wholly right. Were such patients left out, those without the class would count
    only where the model was wrong. The surface distance is the mean over the images that have one.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("a patient without images cannot be scored; leave the patient out")
    total = {key: np.sum([record[key] for record in records], axis=0) for key in _COUNTS}
    size = total["predicted"] + total["true"]
    dice = np.where(size > 0, 2 * total["overlap"] / np.maximum(size, 1), 1.0)
    distances = np.stack([record["hd95_mm"] for record in records])
    measured = np.isfinite(distances).sum(axis=0)
    return {
        "dice": dice,
        "patients": np.ones_like(dice),
        "hd95_mm": np.nansum(distances, axis=0) / np.maximum(measured, 1),
        "hd95_patients": (measured > 0).astype(np.float64),
    }


def score(sums: Sums, classes: Sequence[str]) -> dict[str, float]:
    """Return the metrics of the patients that the sums are over.

    hd95_mm leaves out the pairs of patient and class without two surfaces, so a model that finds
    nothing is not punished by it: read it beside dice. Sums that noise has covered have none.
    """
    patients = sums["patients"].sum()
    means = [float(value) for value in sums["dice"] / sums["patients"]] if patients else []
    of_each = means or [math.nan] * len(classes)
    values = {
        "dice": float(np.mean(of_each)),
        **{f"dice_{name}": value for name, value in zip(classes, of_each, strict=True)},
    }
    if "hd95_patients" in sums:
        measured = sums["hd95_patients"].sum()
        values["hd95_mm"] = float(sums["hd95_mm"].sum() / measured) if measured else math.nan
    return values


def bounded_row(sums: Sums) -> Sums:
    """Return a patient's Dice values [C], each in [0, 1].

    Two patients' rows so differ by at most sqrt(C). The surface distance has no bound that would
    leave anything of it under the noise, so it is left out.
    """
    return {"dice": np.clip(np.nan_to_num(sums["dice"]), 0.0, 1.0)}


def restored(sums: Sums, patients: int) -> Sums:
    """Return totals of Dice values with noise as those of so many patients."""
    dice = np.clip(sums["dice"], 0.0, patients)
    return {"dice": dice, "patients": np.full_like(dice, patients)}


def _of_classes(criterion: Loss) -> Loss:
    return lambda logits, target: criterion(of_both(logits), target)


def _foreground(labels: Tensor, classes: int) -> Tensor:
    # [...] of class indices -> [C, ...] of bool.
    return F.one_hot(labels.long(), classes).movedim(-1, 0)[1:].bool()


def _voxels(masks: Tensor) -> NDArray[np.float64]:
    return masks.flatten(1).sum(dim=1).double().numpy()


def _hd95_mm(predicted: Tensor, true: Tensor, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    # Huttenlocher et al., PAMI 1993, with the larger of the two directed 95th percentiles in the
    # place of the maximum. Along an axis of one voxel there is no surface: it is left out.
    thick = [axis for axis, size in enumerate(true.shape[1:]) if size > 1]
    if len(thick) == 2 < true.ndim - 1:
        shape = [len(true), *(true.shape[1 + axis] for axis in thick)]
        predicted, true = predicted.reshape(shape), true.reshape(shape)
        spacing_mm = [spacing_mm[axis] for axis in thick]
    distance = np.full(len(true), np.nan)
    both = predicted.flatten(1).any(dim=1) & true.flatten(1).any(dim=1)
    if both.any():
        distance[both.numpy()] = compute_hausdorff_distance(
            predicted[both][None],
            true[both][None],
            include_background=True,
            percentile=95,
            spacing=list(spacing_mm),
        )[0].numpy()
    return distance
