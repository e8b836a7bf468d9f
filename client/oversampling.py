"""Rare classes more often: how much more likely an image is to be drawn than one without them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from client.cohort import Samples
from common.study import Study


def factors_of(samples: Samples, study: Study) -> Tensor | None:
    """Return each sample's factor, [N], 1 or more, by its own classes alone; None: all are 1.

    Of several classes that an image has, the one with the largest factor counts. An image without
    a label has 1.
    """
    asked = study.training.oversample
    if not asked:
        return None
    of_class = torch.tensor([asked.get(name, 1.0) for name in study.task.classes])
    if not study.task.dense and samples.targets.ndim > 1:
        return (samples.targets * of_class).amax(dim=1).clamp(min=1.0)
    if not study.task.dense:
        known = samples.targets >= 0
        return torch.where(known, of_class[samples.targets.long().clamp(min=0)], 1.0)
    # In a mask 0 is the background; where there is none, all is below.
    of_value = torch.cat([torch.ones(1), of_class])
    masks = samples.targets.long().clamp(min=0)
    return torch.stack([of_value[torch.unique(mask)].max() for mask in masks])


def kept_of_units(
    factor_N: Tensor | None, units: Sequence[Sequence[int]], share: float, rate: float
) -> Tensor | None:
    """Return each unit's chance [U] to stay in a step once it was drawn at the largest rate.

    It is then in a step at min(1, factor x share), a rate that hangs on its own images alone, and
    that is at most the one that is charged. A unit of several images counts as the one with the
    largest factor. share: the rate where nothing is drawn more often. rate: the largest.
    """
    if factor_N is None:
        return None
    of_unit = torch.stack([factor_N[torch.tensor(list(images))].max() for images in units])
    return (share * of_unit).clamp(max=1.0) / rate
