"""Rounds in fluke: its FedAVG, one process, client after client, all in memory.

    python run_fluke.py --clients N --shapes FILE.json --rounds R [--work FOLDER]

fluke wants a training set a client: each has one number. A client skips its `fit` and nothing
else; with work it trains in one process of two threads. fluke copies the model for every message
and, by default, every client keeps its own. The package requires torchvision for its data sets,
which nothing here imports.
"""

import os
from pathlib import Path
from typing import Any

from measured import (
    ENVIRONMENT,
    WORKERS,
    initial_weights,
    now_s,
    read_arguments,
    take_stdout,
    write_result,
)

os.environ.update(ENVIRONMENT)

import torch
from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.client import Client
from fluke.comm import ChannelObserver, Message
from fluke.data import DataSplitter, DummyDataContainer, FastDataLoader
from fluke.utils import FederationObserver
from torch import nn


class GivenClient(Client):
    """A client that does the given work, or sends the model back as it came."""

    work: Path | None = None
    """The folder of the work, set before there are clients."""
    rounds_done = 0

    def fit(self, override_local_epochs: int = 0) -> float:
        """Train as the work says."""
        if self.work:
            from work import put_weights, trained, weights_of

            # Not in its own network: the weights of a copy that fluke has made are no leaves.
            weights = weights_of(self.model)
            put_weights(self.model, trained(weights, self.work, self.index, self.rounds_done))
            self.rounds_done += 1
        return 0.0


class GivenFedAVG(FedAVG):
    """fluke's FedAvg with clients of given work."""

    def get_client_class(self) -> type[Client]:
        """Return the class of the clients."""
        return GivenClient


class Timer(FederationObserver, ChannelObserver):
    """Notes when rounds begin and end and counts the models that the server takes."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.averaged: list[int] = []

    def start_round(self, round: int, global_model: nn.Module) -> None:
        """Note when the first round begins."""
        if not self.times_s:
            self.times_s.append(now_s())
        self.averaged.append(0)

    def end_round(self, round: int) -> None:
        """Note when the round ends."""
        self.times_s.append(now_s())

    def message_received(self, by: Any, message: Message) -> None:  # noqa: ANN401
        """Count a model that the server takes for its average."""
        if by == "server":
            self.averaged[-1] += 1


def federation(clients: int, model: nn.Module) -> GivenFedAVG:
    """Return FedAvg of the model over clients of equal weight, with one number of data each."""
    number = torch.zeros(1, 1)
    loaders = [FastDataLoader(number, number, num_labels=1) for _ in range(clients)]
    data = DummyDataContainer(loaders, [None] * clients, None, num_classes=1)
    settings = DDict(
        model=model,
        client=DDict(
            batch_size=1,
            local_epochs=1,
            loss="MSELoss",
            optimizer=DDict(name="SGD", lr=0.1),
            scheduler=DDict(name="StepLR", step_size=1, gamma=1),
        ),
        server=DDict(weighted=False),
    )
    return GivenFedAVG(clients, DataSplitter(data), settings)


def main() -> None:
    """Measure, check, and write the result."""
    asked = read_arguments()
    out = take_stdout()
    GivenClient.work = asked.work
    if asked.work:
        from work import network_of

        torch.set_num_threads(WORKERS)
        model = network_of(asked.work)
    else:
        torch.set_num_threads(1)
        model = nn.ParameterList([torch.from_numpy(array) for array in initial_weights(asked)])
    FlukeENV().set_eval_cfg(server=False)
    run = federation(asked.clients, model)
    timer = Timer()
    run.set_callbacks([timer])
    run.run(n_rounds=asked.rounds, eligible_perc=1)
    final = [parameter.detach().numpy() for parameter in run.server.model.parameters()]
    write_result(out, "fluke-fl", asked, timer.times_s, timer.averaged, final)


if __name__ == "__main__":
    main()
