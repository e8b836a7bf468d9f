"""What a round of a study takes at a site: memory, minutes, and images in a private pass."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from client.manifest import Row
from client.privacy.dp_sgd import private_plan
from client.privacy.engine.preflight import memory_bytes, memory_of, one_pass
from client.training import steps_of
from common.models.registry import build_model
from common.seeding import seed
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
    """Of a round, if all patients trained."""
    minutes: float
    """Of a round: passes alone, without reading data or evaluating."""
    physical_batch: int
    """Images in memory at once. With privacy as many as fit into half of this machine's memory, and
    the study's number at most; 0: not even one fits."""
    private: bool


def cost_of(study: Study, rows: Sequence[Row], device: torch.device) -> Cost:
    """Return what a round takes if all patients of the rows train, an image a row.

    In a 2-D study each slice of a volume is an image, and the round takes so much longer.
    """
    model = build_model(study.model, seed(study.seed, "initial model")).to(device)
    shape = (study.data.channels, *(study.data.segment or study.data.size))
    memory = memory_of(model, shape, device)
    private = study.privacy.private
    images_each = list(Counter(row.patient for row in rows).values())
    batch = study.training.batch_size
    if private:
        plan = private_plan(study, images_each)
        steps, at_once = plan.steps_a_round, study.privacy.images_per_patient
        images = plan.units_a_step * min(at_once or math.inf, max(images_each))
        fits = memory.images(study.privacy.physical_batch_size, memory_bytes(device))
        kept_bytes = memory.private_bytes * fits
    else:
        steps, images, fits = steps_of(study.training, len(rows)), batch, batch
        kept_bytes = memory.plain_bytes * batch
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return Cost(
        study=study.name,
        memory_mb=((1 + _COPIES) * weights_bytes + kept_bytes) / 1e6,
        steps=steps,
        minutes=steps * images * _seconds_an_image(model, shape, device, private) / 60,
        physical_batch=fits,
        private=private,
    )


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
