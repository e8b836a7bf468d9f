"""Whether a study's network takes the study's images, told before any image is read."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import nn

from common.models.layers import lr_factors_of
from common.models.registry import sketch
from common.models.trained import check_something_travels
from common.study import Study

STEPS = (2, 4, 8, 16, 32)


def check_fits(study: Study) -> None:
    """Refuse a network that cannot take the images, or learn as the study says.

    The network is passed through without weights or values, on PyTorch's meta device.

    Raises:
        ValueError: with the sizes, and what would pass.
    """
    _check_grid(study)
    network = sketch(study.model)
    check_something_travels(network, study.model)
    lr_factors_of(network, study.training.lr_factors)
    for name, size in (("data.size", study.data.size), ("data.segment", study.data.segment)):
        if size is not None:
            _check(network, study, name, size)


def _check_grid(study: Study) -> None:
    """Refuse segments that a network, which sees what lies around them, could not be trained by."""
    segment, grid = study.data.segment, study.model.grid
    if segment is None or not study.model.margin:
        return
    if study.task.name != "segmentation":
        raise ValueError(
            f"model.segment={list(segment)} sees more than it answers for, and task.name="
            f"{study.task.name} makes its answers of all that is seen; set model.segment=null"
        )
    fitting = [n + (whole - n) % grid for n, whole in zip(segment, study.data.size, strict=True)]
    if fitting != list(segment):
        raise ValueError(
            f"data.segment={list(segment)} in data.size={list(study.data.size)}: segments begin at "
            f"multiples of {grid} voxels (model.name={study.model.name}), so voxels at the border "
            f"would be in none; give data.segment={fitting}"
        )


def _check(network: nn.Module, study: Study, name: str, size: Sequence[int]) -> None:
    told = f"model.name={study.model.name} with {name}={list(size)}"
    try:
        answer = _answered(network, study, size)
    # MONAI's networks and PyTorch raise what they like on a size that does not fit.
    except Exception as error:
        raise ValueError(
            f"{told} does not work: {_first_line(error)}; {_that_fit(network, study, size)}"
        ) from error
    wanted = _wanted(study, size)
    if list(answer) == wanted:
        return
    if len(answer) == len(wanted) and answer[0] == wanted[0]:
        raise ValueError(
            f"{told} gives answers of the sides {answer[1:]}, and each voxel needs one; "
            f"{_that_fit(network, study, size)}"
        )
    kind = "one answer a voxel" if study.task.dense else "one answer an image"
    more = (
        " (of those for images: method=contrastive or task.method=rotated)"
        if study.task.name == "pretraining" and study.task.dense
        else ""
    )
    raise ValueError(
        f"{told} gives answers of shape {answer}, and task.name={study.task.name} "
        f"needs {wanted}: {kind}; `wardround-sim models` lists the networks by task" + more
    )


def _answered(network: nn.Module, study: Study, size: Sequence[int]) -> list[int]:
    """Return the shape of the network's answer to one image."""
    # One image where that can be a batch: a norm over a single value fails with one alone.
    count = 2 if study.model.norm == "batch" else 1
    seen = [n + 2 * study.model.margin for n in size]
    network.train()(torch.empty(count, study.data.planes, *seen, device="meta"))
    images = torch.empty(count, study.data.planes, *size, device="meta")
    return list(network.eval()(images).shape[1:])


def _wanted(study: Study, size: Sequence[int]) -> list[int]:
    of_task, of_model = study.task.out_channels, study.model.out_channels
    channels = of_model if of_model in study.task.outputs(of_task) else of_task
    return [channels, *(size if study.task.dense else ())]


def _that_fit(network: nn.Module, study: Study, size: Sequence[int]) -> str:
    """Return in words sides near these that the network takes."""
    for step in STEPS:
        sides = [-(-side // step) * step for side in size]
        with suppress(Exception):
            if sides != list(size) and _answered(network, study, sides) == _wanted(study, sides):
                return f"give sides that are multiples of {step}, as {sides}"
    return "give larger sides, or fewer levels in model.channels"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
