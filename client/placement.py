"""How a step's samples come to the device that trains, and where they are changed at random."""

from collections.abc import Callable

import torch
from torch import Tensor

from client.cohort import Samples
from common.data_config import DataConfig

SHARE = 0.1
"""Of a GPU's free memory, which a round's samples may take for its whole time."""
Taken = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(indices [B]) -> images [B, C, *size] and targets of these samples."""


def samples_on(samples: Samples, data: DataConfig, device: torch.device) -> Taken:
    """Return what takes samples to where they are changed at random.

    That is the device: what is drawn is drawn on the CPU, so the changes are the same on each. The
    samples lie there for the round if SHARE of a GPU's memory holds them; else each batch is copied
    from memory that the GPU reads by itself. Segments are cut on the CPU: where, is read off each
    mask.
    """
    images, targets = samples.images, samples.targets
    if device.type == "cpu" or data.segment is not None:
        return lambda indices: (images[indices], targets[indices])
    if images.nbytes + targets.nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]:
        images, targets = images.to(device), targets.to(device)
        return lambda indices: (images[indices.to(device)], targets[indices.to(device)])

    def copied(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True)

    return lambda indices: (copied(images[indices]), copied(targets[indices]))
