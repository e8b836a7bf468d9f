"""How much of a GPU a hospital's training takes, so that as many as fit are trained at once."""

import math

import torch

from client.placement import SHARE
from client.preflight.cost import largest_pass
from client.privacy.engine.preflight import memory_of
from common.models.registry import build_model
from common.schema import SettingsError
from common.segments import seen_size
from common.study import Study

CONTEXT_BYTES = 600 * 2**20
"""What CUDA and PyTorch's kernels take in each process before there is a tensor."""


def measured_gpu_share(study: Study) -> float:
    """Return the share of this machine's GPU that a hospital of the study takes.

    Raises:
        SettingsError: PyTorch sees no GPU, or it does not hold a hospital.
    """
    if not torch.cuda.is_available():
        raise SettingsError(
            "simulation.gpus_per_actor=auto goes by the memory of this machine's GPU, and PyTorch "
            "sees none; give 0 to train on the CPU, or the share of a cluster's GPU as a number"
        )
    whole_bytes = torch.cuda.get_device_properties(0).total_memory
    return share_of(step_bytes(study, whole_bytes), whole_bytes)


def step_bytes(study: Study, whole_bytes: int) -> int:
    """Return the bytes of a training step: the weights, the optimiser, what the largest pass keeps.

    Measured on made-up images on the CPU: what autograd keeps is as large there, and this process
    keeps no memory of the GPU. whole_bytes: of the GPU.
    """
    model = build_model(study.model, study.seed)
    shape = (study.data.planes, *seen_size(study))
    memory = memory_of(model, shape, torch.device("cpu"))
    return largest_pass(study, model, memory, whole_bytes)[1]


def share_of(step_bytes: int, whole_bytes: int) -> float:
    """Return one of the equal parts of a GPU that each hold a process with such a step.

    With it come CUDA's own memory and the samples that lie on the GPU for a round.

    Raises:
        SettingsError: it takes more than the whole.
    """
    taken_bytes = CONTEXT_BYTES + step_bytes + SHARE * whole_bytes
    if taken_bytes > whole_bytes:
        raise SettingsError(
            f"a hospital's training takes {taken_bytes / 1e9:.1f} GB of the GPU, which has "
            f"{whole_bytes / 1e9:.1f}; lower training.batch_size, or choose a smaller model or "
            "smaller images"
        )
    return 1 / math.floor(whole_bytes / taken_bytes)
