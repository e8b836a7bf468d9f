"""The network that a study begins with, the same wherever it is built."""

from torch import nn

from common.models.registry import build_model
from common.seeding import seed
from common.study import Study


def start_network(study: Study) -> nn.Module:
    """Return the study's network with the weights of its start, on the CPU.

    Raises:
        ValueError, StartError: as build_model.
    """
    return build_model(study.model, seed(study.seed, "initial model"))
