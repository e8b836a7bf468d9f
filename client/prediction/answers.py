"""What a study's model says of an image, on the image's own voxels.

Shape suffixes: K classes, S spatial axes of the file, N samples of the file, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.evaluation import BATCH
from client.prediction.passes import Passes
from client.profile import place_of
from client.readers import Picture
from client.row_images import samples_in
from common.tasks.multilabel import SEPARATOR, MultilabelConfig
from common.tasks.segmentation import SegmentationConfig
from common.transforms import Whereabouts, back_to_own, prepare, prepare_whole


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says of one image."""

    label: str | None
    """The likeliest class; of several labels all that are likelier than not, or none of them."""
    scores: dict[str, float]
    """Probability of each class, in the mean over the slices of a volume; of a segmentation
    empty."""
    classes_S: NDArray[np.uint8] | None
    """The mask on the reader's axes: 0, or the place of a class from 1 on; None without one."""
    label_values: Sequence[int]
    """What stands for each class in the study's mask files; empty without a mask."""
    entropy_S: NDArray[np.float32] | None
    """Of each voxel, from 0 (sure) to 1 (all classes alike); None where there is no mask."""
    voxels: dict[str, int]
    """Voxels of each class of the mask, without the background."""
    entropy: float
    """From 0 to 1: of the answer; of a mask the mean over its voxels, each counted by the
    probability that it is no background."""
    features_F: NDArray[np.float64]
    """Where the image is among the sites' patients (client/profile.py)."""

    def labels(self) -> NDArray[np.generic]:
        """Return the mask, which there is, with the values of the study's mask files."""
        assert self.classes_S is not None
        values = np.asarray([0, *self.label_values])
        labels: NDArray[np.generic] = values.astype(np.min_scalar_type(int(values.max())))[
            self.classes_S
        ]
        return labels


def answers_to(pictures: Sequence[Picture], passes: Passes) -> list[Answer]:
    """Return what the model says of each picture; those of one size are looked at together."""
    if not passes.task.config.dense:
        return _classes(pictures, passes)
    found: list[Answer | None] = [None] * len(pictures)
    same: dict[tuple[int, ...], list[tuple[int, Tensor, Whereabouts]]] = {}
    for place, picture in enumerate(pictures):
        whole, where = prepare_whole(passes.study.data, picture.array_CS, picture.spacing_mm)
        if whole.ndim - 1 > passes.study.data.spatial_dims:
            found[place] = _slices(whole, where, passes)
        else:
            same.setdefault(tuple(whole.shape), []).append((place, whole, where))
    for group in same.values():
        probabilities, features = passes.look(torch.stack([whole for _, whole, _ in group]))
        for number, (place, _, where) in enumerate(group):
            voxels = _voxels(probabilities[number], where)
            found[place] = _masked([voxels], features[number : number + 1], passes)
    return [answer for answer in found if answer is not None]


def _classes(pictures: Sequence[Picture], passes: Passes) -> list[Answer]:
    data = passes.study.data
    run = prepare(data)
    samples = [samples_in(run(p.array_CS, None, p.spacing_mm)[0], data) for p in pictures]
    probabilities_NK, features_NF = passes.look(torch.cat(samples))
    counts = [len(of_picture) for of_picture in samples]
    return [
        _class(of_picture.double().mean(0), features, passes)
        for of_picture, features in zip(
            torch.split(probabilities_NK, counts), torch.split(features_NF, counts), strict=True
        )
    ]


def _class(probabilities_K: Tensor, features_NF: Tensor, passes: Passes) -> Answer:
    config = passes.task.config
    if isinstance(config, MultilabelConfig):
        there = [n for n, p in zip(config.classes, probabilities_K, strict=True) if p >= 0.5]
        label = SEPARATOR.join(there) or config.no_label
        both = torch.stack([probabilities_K, 1 - probabilities_K])
        entropy = float(entropy_of(both).mean())
    else:
        label = config.classes[int(probabilities_K.argmax())]
        entropy = float(entropy_of(probabilities_K))
    return Answer(
        label=label,
        scores=dict(zip(config.classes, probabilities_K.tolist(), strict=True)),
        classes_S=None,
        label_values=(),
        entropy_S=None,
        voxels={},
        entropy=entropy,
        features_F=place_of(features_NF),
    )


def entropy_of(probabilities_K: Tensor) -> Tensor:
    """Return the entropy over the first axis, over the largest that is possible: from 0 to 1."""
    total: Tensor = -torch.special.xlogy(probabilities_K, probabilities_K).sum(0)
    return total / float(np.log(len(probabilities_K)))


@dataclass(frozen=True)
class _Voxels:
    """Of each voxel of the file: class, entropy, and the probability of no background."""

    classes_S: Tensor
    entropy_S: Tensor
    foreground_S: Tensor


def _slices(whole: Tensor, where: Whereabouts, passes: Passes) -> Answer:
    """Return the answer to a volume whose slices are the samples, some slices at a time."""
    parts, features = [], []
    for slices in torch.split(samples_in(whole, passes.study.data), BATCH):
        probabilities, of_slices = passes.look(slices)
        parts.append(_voxels(probabilities.movedim(0, -1), where))
        features.append(of_slices)
    return _masked(parts, torch.cat(features), passes)


def _voxels(probabilities_KS: Tensor, where: Whereabouts) -> _Voxels:
    """Return the answer on the file's own voxels, class by class: a CT's need not all be there."""
    own = back_to_own(probabilities_KS[:1], where)[0]
    best, classes = own, torch.zeros(own.shape, dtype=torch.uint8)
    total, foreground = -torch.special.xlogy(own, own), 1 - own
    for place in range(1, len(probabilities_KS)):
        own = back_to_own(probabilities_KS[place : place + 1], where)[0]
        classes[own > best] = place
        best = torch.maximum(best, own)
        total -= torch.special.xlogy(own, own)
    return _Voxels(classes, total / float(np.log(len(probabilities_KS))), foreground)


def _masked(parts: Sequence[_Voxels], features_NF: Tensor, passes: Passes) -> Answer:
    config = passes.task.config
    assert isinstance(config, SegmentationConfig)
    classes = torch.cat([part.classes_S for part in parts], -1)
    entropy = torch.cat([part.entropy_S for part in parts], -1).clamp(0, 1)
    weight = torch.cat([part.foreground_S for part in parts], -1).clamp(min=0)
    counts = torch.bincount(classes.flatten(), minlength=1 + len(config.classes)).tolist()
    total = float(weight.sum(dtype=torch.float64))
    return Answer(
        label=None,
        scores={},
        classes_S=classes.numpy(),
        label_values=tuple(config.label_values),
        entropy_S=entropy.numpy(),
        voxels=dict(zip(config.classes, counts[1:], strict=True)),
        entropy=float((entropy * weight).sum(dtype=torch.float64)) / total if total else 0.0,
        features_F=place_of(features_NF),
    )
