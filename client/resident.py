"""What a process keeps of a study between messages, for speed and never for meaning.

Its settings, and its network: to build one takes as long as to train it on a few small images.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from common.config import load_study, study_digest
from common.contract import RefusalError
from common.models.initial import start_network
from common.models.layers import lr_factors_of
from common.models.registry import local_names
from common.models.start import StartError
from common.models.trained import check_something_travels, frozen_names
from common.state import State, state_of
from common.study import Study

CACHED = 64


@functools.lru_cache(maxsize=CACHED)
def composed(overrides: tuple[str, ...]) -> Study:
    """Return the study of the overrides; composed once a process."""
    return load_study(overrides)


@functools.lru_cache(maxsize=CACHED)
def composed_digest(overrides: tuple[str, ...]) -> str:
    """Return the digest of the study of the overrides; computed once a process."""
    return study_digest(composed(overrides))


@dataclass(frozen=True, kw_only=True)
class Resident:
    """A study's network on a device."""

    network: nn.Module
    start: State
    """What it begins with; on the CPU, as a GPU's memory is for training."""
    local: frozenset[str]
    """Names of the tensors that are a site's own and never travel."""
    frozen: frozenset[str]
    """Names of those that nothing trains: every site has them from the start."""

    def begin(self) -> None:
        """Put the network back to its start: as if it were just built."""
        self.network.load_state_dict(self.start)
        self.network.train()

    def rest(self) -> None:
        """Keep nothing but weights: the gradients of a last step are of patients, and large."""
        for parameter in self.network.parameters():
            parameter.grad = None
            # Opacus hangs its sums of gradients there.
            vars(parameter).clear()


_AT_REST: dict[tuple[tuple[str, ...], torch.device], Resident] = {}
"""The network of the study that was asked for last, while nobody has it."""


@contextmanager
def resident(overrides: tuple[str, ...], device: torch.device) -> Iterator[Resident]:
    """Lend the study's network, as if it were just built; nobody else has it meanwhile.

    After an error it is thrown away, with whatever hangs on it: half a pass, or hooks.

    Raises:
        RefusalError: as new_network.
    """
    lent = _AT_REST.pop((overrides, device), None)
    # Another study's makes room before this one's is built.
    _AT_REST.clear()
    if lent is None:
        lent = _built(composed(overrides), device)
    else:
        lent.begin()
    yield lent
    lent.rest()
    _AT_REST[overrides, device] = lent


def _built(study: Study, device: torch.device) -> Resident:
    network = new_network(study)
    return Resident(
        start=state_of(network),
        local=local_names(network, study.model),
        frozen=frozen_names(network),
        network=network.to(device),
    )


def new_network(study: Study) -> nn.Module:
    """Return the study's network with the weights of its start, on the CPU.

    Raises:
        RefusalError: the site lacks the weights that it starts from, or the study's settings do not
            fit its network.
    """
    try:
        network = start_network(study)
        check_something_travels(network, study.model)
        lr_factors_of(network, study.training.lr_factors)
    except StartError as error:
        raise RefusalError(
            "weights",
            "this site does not have the weights that the study starts from, or has others; put "
            "their file into its folder of weights",
        ) from error
    except ValueError as error:
        raise RefusalError(
            "study", "the study names parts of its network that are not there, or trains none"
        ) from error
    return network
