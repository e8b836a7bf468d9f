"""The work of a client: given steps on given batches, the same in every framework.

A folder holds the network (NETWORK, TorchScript with its initial weights), a file a client
(`0000.npz`: images, targets, and the samples of each step of each round) and the learning rate
(SETTINGS). The scripts run where wardround is not installed; torch alone is needed.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NETWORK, SETTINGS = "network.pt", "settings.json"


def client_file(client: int) -> str:
    """Return the name of a client's file."""
    return f"{client:04d}.npz"


def step_name(round_number: int, step: int) -> str:
    """Return the array of a client's file that names the samples of a step; both from 0."""
    return f"round {round_number} step {step}"


def network_of(folder: Path) -> nn.Module:
    """Return the network with its initial weights."""
    network: nn.Module = torch.jit.load(str(folder / NETWORK))  # type: ignore[no-untyped-call]
    return network


@cache
def resident_network(folder: Path) -> nn.Module:
    """Return the one network of this process, for frameworks that hand weights alone about."""
    return network_of(folder)


@cache
def batches_of(folder: Path, client: int) -> tuple[tuple[tuple[Tensor, Tensor], ...], ...]:
    """Return a client's batches by round and step, read once in a process."""
    with np.load(folder / client_file(client)) as arrays:
        images, targets = (torch.from_numpy(arrays[name]) for name in ("images", "targets"))
        rounds: list[tuple[tuple[Tensor, Tensor], ...]] = []
        while step_name(len(rounds), 0) in arrays:
            steps: list[tuple[Tensor, Tensor]] = []
            while (name := step_name(len(rounds), len(steps))) in arrays:
                chosen = torch.from_numpy(arrays[name])
                steps.append((images[chosen], targets[chosen]))
            rounds.append(tuple(steps))
    return tuple(rounds)


def train(network: nn.Module, folder: Path, client: int, round_number: int) -> None:
    """Take a client's steps of a round in place: plain SGD on the mean cross-entropy.

    round_number: from 0.
    """
    rate = json.loads((folder / SETTINGS).read_text())["lr"]
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    network.train()
    for images, targets in batches_of(folder, client)[round_number]:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def weights_of(network: nn.Module) -> list[NDArray[np.float32]]:
    """Return the weights in the network's order, without a copy."""
    return [parameter.detach().numpy() for parameter in network.parameters()]


def put_weights(network: nn.Module, weights: Sequence[NDArray[np.float32]]) -> None:
    """Copy the weights into the network, in its order."""
    with torch.no_grad():
        for parameter, array in zip(network.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(array))


def trained(
    weights: Sequence[NDArray[np.float32]], folder: Path, client: int, round_number: int
) -> list[NDArray[np.float32]]:
    """Return a client's weights after a round that began with these; its own until the next."""
    network = resident_network(folder)
    put_weights(network, weights)
    train(network, folder, client, round_number)
    return weights_of(network)
