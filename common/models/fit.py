"""Whether a study's network takes the study's images, told before any image is read."""

from collections.abc import Sequence

import torch
from torch import nn

from common.models.layers import lr_factors_of
from common.models.registry import sketch
from common.models.trained import check_something_travels
from common.study import Study


def check_fits(study: Study) -> None:
    """Refuse a network that cannot take the images, or learn as the study says.

    The network is passed through without weights or values, on PyTorch's meta device.

    Raises:
        ValueError: with the sizes, and what would pass.
    """
    network = sketch(study.model)
    check_something_travels(network, study.model)
    lr_factors_of(network, study.training.lr_factors)
    for name, size in (("data.size", study.data.size), ("data.segment", study.data.segment)):
        if size is not None:
            _check(network, study, name, size)


def _check(network: nn.Module, study: Study, name: str, size: Sequence[int]) -> None:
    # One image where that can be a batch: a norm over a single value fails with one alone.
    count = 2 if study.model.norm == "batch" else 1
    images = torch.empty(count, study.data.channels, *size, device="meta")
    told = f"model.name={study.model.name} with {name}={list(size)}"
    try:
        network.train()(images)
        answer = network.eval()(images)
    # MONAI's networks and PyTorch raise what they like on a size that does not fit.
    except Exception as error:
        raise ValueError(
            f"{told} does not work: {_first_line(error)}; give sides that are multiples of 16 or "
            "32, or fewer levels in model.channels"
        ) from error
    wanted = (count, study.task.out_channels, *(size if study.task.dense else ()))
    if answer.shape != wanted:
        kind = "one answer a voxel" if study.task.dense else "one answer an image"
        raise ValueError(
            f"{told} gives answers of shape {list(answer.shape)}, and task.name={study.task.name} "
            f"needs {list(wanted)}: {kind}; `wardround-sim models` lists the networks by task"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
