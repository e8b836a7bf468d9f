"""What a round of a study takes at a site: memory, minutes, and images in a private pass."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from client.preflight.facts import Facts
from client.privacy.dp_sgd import private_plan
from client.privacy.engine.preflight import Memory, memory_bytes, memory_of, one_pass
from client.training import steps_of
from common.models.initial import start_network
from common.segments import seen_size
from common.study import Study

_COPIES = 3
"""Of the weights beside the network's own: its gradient, and two of an optimiser such as Adam."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Estimated from two passes of made-up images on this machine."""

    study: str
    memory_mb: float
    """Weights, their gradients, what the optimiser and a pass keep; without the data."""
    steps: int
    """Of a round."""
    minutes: float
    """Of a round: passes alone, without reading data or evaluating."""
    physical_batch: int
    """Images in memory at once. With privacy as many as fit into half of this machine's memory, and
    the study's number at most; 0: not even one fits."""
    private: bool


def cost_of(study: Study, facts: Sequence[Facts], device: torch.device) -> Cost | None:
    """Return what a round takes if all patients train but those whose side is test.

    None where nobody is left.
    """
    images_each = _images_each(study, facts)
    if not images_each:
        return None
    model = start_network(study).to(device)
    shape = (study.data.channels, *seen_size(study))
    memory = memory_of(model, shape, device)
    private = study.privacy.private
    fits, step_bytes = largest_pass(study, model, memory, memory_bytes(device))
    if private:
        plan = private_plan(study, images_each)
        steps, images = plan.steps_a_round, plan.units_a_step * _images_a_unit(study, images_each)
    else:
        steps, images = steps_of(study.training, sum(images_each)), study.training.batch_size
    return Cost(
        study=study.name,
        memory_mb=step_bytes / 1e6,
        steps=steps,
        minutes=steps * images * _seconds_an_image(model, shape, device, private) / 60,
        physical_batch=fits,
        private=private,
    )


def largest_pass(
    study: Study, model: nn.Module, memory: Memory, whole_bytes: int
) -> tuple[int, int]:
    """Return the images of a training pass, and the bytes of it with the weights and optimiser.

    memory: what an image takes. whole_bytes: of the device; with privacy half of it may be used.
    """
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    images, each_bytes = study.training.batch_size, memory.plain_bytes
    if study.privacy.private:
        images = memory.images(study.privacy.physical_batch_size, whole_bytes)
        each_bytes = memory.private_bytes
    return images, (1 + _COPIES) * weights_bytes + images * each_bytes


def _images_each(study: Study, facts: Sequence[Facts]) -> list[int]:
    """Return the images of each patient who trains; in a 2-D study each slice is one."""
    images: Counter[str] = Counter()
    for one in facts:
        slices = one.size[-1] if len(one.size) > study.data.spatial_dims else 1
        if one.row.split != "test":
            images[one.row.patient] += slices
    return list(images.values())


def _images_a_unit(study: Study, images_each: Sequence[int]) -> float:
    if study.privacy.unit == "image":
        return 1
    return min(study.privacy.images_per_patient or math.inf, max(images_each))


def _seconds_an_image(
    model: nn.Module, shape: Sequence[int], device: torch.device, private: bool
) -> float:
    count = 2
    # The first pass makes room, and is slower.
    for _ in range(2):
        start = perf_counter()
        one_pass(model, shape, device, count, private)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = perf_counter() - start
    return seconds / count
