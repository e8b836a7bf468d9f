"""Pre-training without labels: the image itself says what is right.

masked: what is under hidden patches (for networks with an answer a voxel); rotated: by how many
quarter turns an image was turned (for those with an answer an image). Each image is judged by
itself, so a patient's gradient exists. contrastive: which image a view is of
(common/tasks/contrastive.py); it compares the images of a batch, so none exists. Legend of shapes:
B images, C channels, S spatial axes, N patches.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from common.checks import in_range, one_of, positive
from common.data_config import DataConfig
from common.tasks.classification import (
    ClassificationConfig,
    build_classification,
    classification_metrics,
)
from common.tasks.config import TaskConfig
from common.tasks.contrastive import OF_PAIRS, build_contrastive, contrastive_metrics
from common.tasks.losses import OF_HIDDEN, OF_IMAGES, loss_of
from common.tasks.segmentation import supervised
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite

TURNS = 4
WORST = 2.0
"""Of the error over that of the mean: a network is called no worse than this."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(TaskConfig):
    """Settings of a pre-training."""

    method: str = "masked"
    """masked, rotated, or contrastive."""
    hidden_share: float | None = 0.6
    """Of masked: share of the patches that are hidden, above 0 and below 1 (0.6: Xie et al., CVPR
    2022; 0.75: He et al., CVPR 2022)."""
    patch: int | None = 8
    """Of masked: voxels along each side of a patch; 2 or more."""
    out_channels: int = 1
    """1 of masked, 4 of rotated; of contrastive the numbers by which images are compared."""
    headline: str = "unexplained"
    """unexplained of masked and contrastive; balanced_accuracy, auroc or ece of rotated."""

    @property
    def dense(self) -> bool:
        """Whether there is an answer a voxel."""
        return self.method == "masked"

    @property
    def grey(self) -> bool:
        """Whether the answer is a grey value."""
        return self.method == "masked"

    @property
    def even_answer(self) -> float:
        """What says nothing: the mean of an image, all turns alike, or no direction."""
        return 1 / TURNS if self.method == "rotated" else 0.0

    @property
    def compares_images(self) -> bool:
        """Whether views are told from those of the batch's other images."""
        return self.method == "contrastive"

    @property
    def reads_labels(self) -> bool:
        """The image is its own target."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(_LOSSES, **{"task.method": self.method})
        wanted = {"masked": 1, "rotated": TURNS}.get(self.method, max(2, self.out_channels))
        if self.out_channels != wanted or self.classes:
            raise ValueError(
                f"task.out_channels={self.out_channels}, task.classes={list(self.classes)} do not "
                f"fit task.method={self.method}; give {wanted} and []"
            )
        for name in ("hidden_share", "patch"):
            if (getattr(self, name) is not None) != self.grey:
                raise ValueError(
                    f"task.{name}={getattr(self, name)} does not go with "
                    f"task.method={self.method}; give it for masked alone, else null"
                )
        if self.hidden_share is not None:
            in_range(0.01, 0.99, **{"task.hidden_share": self.hidden_share})
        if self.patch is not None:
            positive(**{"task.patch": self.patch - 1})
        one_of(pretraining_metrics(self.method), **{"task.headline": self.headline})
        self.check_loss(_LOSSES[self.method])

    def check_data(self, data: DataConfig) -> None:
        """Refuse images of which nothing can be hidden, or that cannot be turned."""
        if self.patch is not None and any(n < 2 * self.patch for n in data.size):
            raise ValueError(
                f"task.patch={self.patch} is more than half of data.size={list(data.size)}; give "
                "smaller patches"
            )
        if self.grey and (data.augment == "full" or data.channels != 1):
            raise ValueError(
                f"data.augment={data.augment}, data.channels={data.channels}: the grey values of "
                "one channel are what task.method=masked learns; choose flip or none, and 1"
            )
        if self.grey and data.normalise != "zscore":
            raise ValueError(
                f"data.normalise={data.normalise}: what is hidden is shown as 0, which is an "
                "image's mean after zscore alone; set data.normalise=zscore"
            )
        if data.covariates is not None:
            raise ValueError(
                f"data.covariates={list(data.covariates)} say nothing of what is hidden, or of how "
                "an image was changed; set it to null: a study that begins with the result may "
                "have them"
            )
        if self.compares_images and (data.augment != "none" or data.sequence_dropout):
            raise ValueError(
                f"data.augment={data.augment}, data.sequence_dropout={data.sequence_dropout}: "
                "task.method=contrastive draws its views of whole images itself; set none and null"
            )
        if self.method == "rotated" and data.augment != "none":
            raise ValueError(
                f"data.augment={data.augment} mirrors or moves images that are turned already, and "
                "a quarter turn that is mirrored is the opposite one; set data.augment=none"
            )
        if self.method == "rotated" and data.size[0] != data.size[1]:
            raise ValueError(
                f"data.size={list(data.size)} is not square in the plane, and a quarter turn would "
                "change it; give two equal sides"
            )


_LOSSES: Mapping[str, Collection[str]] = MappingProxyType(
    {"masked": OF_HIDDEN, "rotated": OF_IMAGES, "contrastive": OF_PAIRS}
)


def pretraining_metrics(method: str) -> dict[str, Metric]:
    """Return the metrics by name."""
    if method == "rotated":
        return classification_metrics(TURNS)
    if method == "contrastive":
        return contrastive_metrics()
    meaning = "squared error under hidden patches over that of the mean, mean over patients."
    return {"unexplained": Metric(False, "", meaning, high=WORST)}


def build_pretraining(config: PretrainingConfig) -> Task:
    """Return the task.

    masked: targets are float32, [B, 2, ...]: the image, and 1 where it is hidden. Sums:
    `unexplained` and `patients` [1]. rotated: as a classification (build_classification) whose four
    classes are the turns. In training what is hidden, or the turn, is drawn anew in each step.
    contrastive: build_contrastive.
    """
    if config.compares_images:
        return build_contrastive(config)
    return _masked(config) if config.grey else _rotated(config)


def _masked(config: PretrainingConfig) -> Task:
    criterion = loss_of(OF_HIDDEN, config.loss, config.out_channels)

    def vary(images: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        del images
        return hidden(targets[:, :1], config, draws)

    return Task(
        config=config,
        metrics=pretraining_metrics(config.method),
        loss=lambda logits, target: supervised(criterion, logits.float(), target),
        activate=lambda logits: logits.float(),
        measure=measure,
        patient_sums=patient_sums,
        score=score,
        bounded=Bounded(bounded_row, 1.0, restored),
        vary=vary,
    )


def _rotated(config: PretrainingConfig) -> Task:
    names = [f"turned_{quarter}" for quarter in range(TURNS)]
    known = ClassificationConfig(
        name="classification",
        classes=names,
        out_channels=TURNS,
        loss=config.loss,
        headline=config.headline,
    )
    return replace(build_classification(known), config=config, vary=turned)


def hidden(
    images_BCS: Tensor, config: PretrainingConfig, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return images whose hidden patches are 0, and targets: the image, and where it is hidden.

    Masked image modelling (He et al., CVPR 2022; Xie et al., CVPR 2022) for convolutions too:
    patches of a grid, as many of each image, drawn for each. 0 is an image's mean after zscore.
    """
    patch, share = int(config.patch or 1), float(config.hidden_share or 0.0)
    grid = [-(-n // patch) for n in images_BCS.shape[2:]]
    count = math.prod(grid)
    most = max(1, min(count - 1, round(share * count)))
    ranks_BN = torch.rand(len(images_BCS), count, generator=draws).argsort(1).argsort(1)
    places = (ranks_BN < most).float().reshape(len(images_BCS), 1, *grid).to(images_BCS.device)
    for axis, size in enumerate(images_BCS.shape[2:], start=2):
        places = places.repeat_interleave(patch, axis).narrow(axis, 0, size)
    return images_BCS * (1 - places), torch.cat([images_BCS, places], dim=1)


def turned(images: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images turned by more quarters, 0 to 3 each, and the turns that these add up to.

    Gidaris et al., ICLR 2018 (RotNet). images: [B, C, X, X, ...], targets: [B] turns so far.
    """
    more = torch.randint(TURNS, (len(images),), generator=draws)
    each = [torch.rot90(image, int(k), (1, 2)) for image, k in zip(images, more, strict=True)]
    after = (targets + more.to(targets.device)) % TURNS
    return (torch.stack(each) if each else images), after


def measure(probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float]) -> Sums:
    """Return the record of one image or volume: `error` and `of_mean` [1], under hidden patches.

    probabilities: [1, ...], grey values. target: [2, ...].

    Raises:
        ValueError: a grey value is not finite, or the shapes do not fit.
    """
    del spacing_mm
    check_finite(probabilities)
    if probabilities.shape != target[:1].shape:
        raise ValueError(
            f"grey values of shape {tuple(probabilities.shape)} do not go with a target of shape "
            f"{tuple(target.shape)}; give [1, ...] and [2, ...]"
        )
    image, places = target.double()
    error = ((probabilities[0].cpu().double() - image).square() * places).sum()
    return {
        "error": np.array([float(error)]),
        "of_mean": np.array([float((image.square() * places).sum())]),
    }


def patient_sums(records: Sequence[Sums]) -> Sums:
    """Return the sums of one patient, of all voxels that are hidden in the patient's images.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("a patient without images cannot be scored; leave the patient out")
    error, of_mean = (
        float(np.sum([record[name] for record in records])) for name in ("error", "of_mean")
    )
    share = min(error / of_mean, WORST) if of_mean else 0.0
    return {"unexplained": np.array([share]), "patients": np.ones(1)}


def score(sums: Sums) -> dict[str, float]:
    """Return the metric of the patients that the sums are over."""
    patients = float(sums["patients"].sum())
    return {"unexplained": float(sums["unexplained"].sum()) / patients if patients else math.nan}


def bounded_row(sums: Sums) -> Sums:
    """Return a patient's share, brought to [0, 1]."""
    return {"unexplained": np.clip(np.nan_to_num(sums["unexplained"]) / WORST, 0.0, 1.0)}


def restored(sums: Sums, patients: int) -> Sums:
    """Return totals with noise as those of so many patients."""
    total = WORST * np.clip(sums["unexplained"], 0.0, patients)
    return {"unexplained": total, "patients": np.full_like(total, patients)}
