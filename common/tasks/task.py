"""What a task is: the same five functions for every task, and the sums that its metrics come from.

Legend of shapes: B images, K classes, ... the spatial axes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.tasks.config import TaskConfig

LEFT_RIGHT = 2
"""The first spatial axis of images and of answers a voxel."""
Sums = Mapping[str, NDArray[np.float64]]
"""Arrays of one shape per task. Those of two sets of patients, added, are those of the union: that
is what lets a bootstrap draw patients again by multiplying counts. They stay at the site."""


@dataclass(frozen=True)
class Metric:
    """What a number means."""

    higher_is_better: bool
    unit: str
    """Unit: mm, or empty for a number without one."""
    meaning: str
    """One line for a table's legend."""
    low: float = 0.0
    """The least value that is possible."""
    high: float = 1.0
    """The largest value that is possible; a site tells nothing beyond the two."""


@dataclass(frozen=True)
class Bounded:
    """A patient's part of the sums, cut to a known size: what noise can cover."""

    row: Callable[[Sums], Sums]
    """A patient's sums, whatever they hold -> the bounded row."""
    sensitivity: float
    """Largest L2 distance, over all arrays together, between the totals of the rows of two sets of
    equally many patients that differ in one patient. Without that patient the total moves no
    further. The number of patients itself is public."""
    restore: Callable[[Sums, int], Sums]
    """Totals with noise, and the number of patients -> totals that are possible, near to them, as
    `score` takes them. It sees no patient, so it costs no privacy."""


def _in_one_pass(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits


@dataclass(frozen=True)
class Task:
    """A loss, and metrics by way of sums."""

    config: TaskConfig
    """The settings that it was built from."""
    metrics: Mapping[str, Metric]
    """What `score` returns, by name."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """logits_BK..., target_B... -> mean over the batch, a scalar: the loss of a batch is the mean
    of its images' losses, as per-sample gradients need; else config.compares_images."""
    activate: Callable[[Tensor], Tensor]
    """logits_BK... -> probabilities_BK..., float32."""
    measure: Callable[[Tensor, Tensor, Sequence[float]], Sums]
    """probabilities_K... and target of one image or one volume, spacing_mm -> its record."""
    patient_sums: Callable[[Sequence[Sums]], Sums]
    """Records of all images of one patient, one or more -> the patient's sums."""
    score: Callable[[Sums], dict[str, float]]
    """Sums over any patients, each counted any number of times -> metrics; nan where undefined.
    Sums that noise has covered give the metrics that stand on them alone."""
    bounded: Bounded
    """What of a patient's sums noise can cover."""
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By metric that is a mean over whichever of others are defined: these. A bootstrap counts it
    where all are defined that are so over all patients; else it would be of another thing."""
    ask: Callable[[nn.Module, Tensor], Tensor] = _in_one_pass
    """A network and images_BC... -> logits_BK..."""
    vary: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None
    """images_BC..., target_B..., draws -> the same as a training step sees them, drawn anew. None
    where a step sees them as they are."""
    answers_by: Callable[["Task", Sums], "Task"] | None = None
    """The task, and the sums of patients who choose -> the task as it answers from then on. None
    where nobody chooses."""


def with_mirrored(
    answers_BK: Tensor, ask: Callable[[Tensor], Tensor], images_BC: Tensor, config: TaskConfig
) -> Tensor:
    """Return the answers, or with task.mirrored the mean of those and of the mirrored images'.

    ask: images_BC... -> probabilities_BK..., as answers_BK... are of images_BC...
    """
    if not config.mirrored:
        return answers_BK
    others_BK = ask(images_BC.flip(LEFT_RIGHT))
    return (answers_BK + (others_BK.flip(LEFT_RIGHT) if config.dense else others_BK)) / 2


def check_finite(probabilities: Tensor) -> None:
    """Raise ValueError where a probability is not a finite number."""
    if not bool(probabilities.isfinite().all()):
        raise ValueError(
            "the model's probabilities are not finite numbers: its training has diverged; "
            "lower training.lr or set training.grad_clip_norm"
        )
