"""Rounds in Apple's pfl: FederatedAveraging on SimulatedBackend, two processes.

    python run_pfl.py --clients N --shapes FILE.json --rounds R [--work FOLDER]

The processes are started as pfl's guide to distributed simulations says: the same script twice,
with PFL_WORKER_ADDRESSES and PFL_WORKER_RANK; this one is rank 0 and starts rank 1. Each takes
half of the clients, one after another on its one resident model, and sums their updates; one
all-reduce a round adds the two sums. An update of pfl is the difference of the model to the one
that came: without work that of a client is zero, but computed, copied and summed like any
other. N is even: pfl deals the clients out in pairs. pfl asks for an evaluation in the first
iteration whatever the frequency; this model has no metrics to compute.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from measured import (
    ENVIRONMENT,
    WORKERS,
    Asked,
    initial_weights,
    now_s,
    read_arguments,
    take_stdout,
    write_result,
)

os.environ.update(ENVIRONMENT)

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.context import CentralContext
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import ModelHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.base import StatefulModel
from pfl.stats import WeightedStatistics
from torch import Tensor, nn

RANK, ADDRESSES = "PFL_WORKER_RANK", "PFL_WORKER_ADDRESSES"


class Network(nn.Module):
    """The model that is asked for, with the two methods that pfl wants of a model."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.network: nn.Module
        if asked.work:
            from work import network_of

            self.network = network_of(asked.work)
        else:
            weights = [torch.from_numpy(array) for array in initial_weights(asked)]
            self.network = nn.ParameterList(weights)

    def loss(self, batch: Tensor) -> Tensor:
        """Return zero; it is never called."""
        return torch.zeros(())

    def metrics(self, batch: Tensor) -> dict[str, float]:
        """Return no metric."""
        return {}


class GivenAveraging(FederatedAveraging):
    """FederatedAveraging with the given work or none; notes its rounds and what it averages."""

    def __init__(self, work: Path | None) -> None:
        super().__init__()
        self.work = work
        self.times_s: list[float] = []
        self.averaged: list[int] = []

    def get_next_central_contexts(
        self, model: StatefulModel, iteration: int, *parameters: ModelHyperParams
    ) -> tuple[tuple[CentralContext, ...] | None, StatefulModel, Metrics]:
        """Note that a round begins, or that the last has ended, and ask pfl which."""
        self.times_s.append(now_s())
        return super().get_next_central_contexts(model, iteration, *parameters)

    def train_one_user(
        self,
        initial_model_state: WeightedStatistics,
        model: StatefulModel,
        user_dataset: Dataset,
        central_context: CentralContext,
    ) -> tuple[WeightedStatistics, Metrics]:
        """Return the difference of the model after its work to what came, with weight 1."""
        if self.work:
            from work import train

            place, number = int(user_dataset.user_id), central_context.current_central_iteration
            train(model.pytorch_model.network, self.work, place, number)
        return model.get_model_difference(initial_model_state), Metrics()

    def process_aggregated_statistics(
        self,
        central_context: CentralContext,
        aggregate_metrics: Metrics,
        model: StatefulModel,
        statistics: WeightedStatistics,
    ) -> tuple[StatefulModel, Metrics]:
        """Note the weight of the sum, 1 an update, and take the step."""
        self.averaged.append(round(statistics.weight))
        return super().process_aggregated_statistics(
            central_context, aggregate_metrics, model, statistics
        )


def start_rank_1() -> subprocess.Popen[bytes]:
    """Start this script again as the second process and make this one the first."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    os.environ[ADDRESSES] = ",".join([f"localhost:{port}"] * WORKERS)
    os.environ[RANK] = "0"
    return subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, RANK: "1"})


def simulate(asked: Asked, network: Network) -> GivenAveraging:
    """Run all rounds; return the algorithm, which knows when they were and what it averaged."""
    # Imported where it is used: the import waits until both processes are there.
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    users = FederatedDataset(
        lambda user: Dataset([np.zeros((1, 1), np.float32)], user_id=user),
        MinimizeReuseUserSampler([str(place) for place in range(asked.clients)]),
    )
    algorithm = GivenAveraging(asked.work)
    algorithm.run(
        NNAlgorithmParams(
            central_num_iterations=asked.rounds,
            evaluation_frequency=asked.rounds,
            train_cohort_size=asked.clients,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=users, val_data=users),
        PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0)),
        NNTrainHyperParams(local_batch_size=1, local_num_epochs=1, local_learning_rate=0.1),
    )
    return algorithm


def main() -> None:
    """Measure, check, and write the result; as rank 1, take part in the measurement."""
    asked = read_arguments()
    if asked.clients % WORKERS:
        sys.exit(f"{asked.clients} clients do not divide among {WORKERS} processes")
    out = take_stdout()
    other = None if RANK in os.environ else start_rank_1()
    network = Network(asked)
    done = simulate(asked, network)
    if other is None:
        return
    if other.wait():
        sys.exit("the second process failed; its message is above")
    final = [parameter.detach().numpy() for parameter in network.network.parameters()]
    write_result(out, "pfl", asked, done.times_s, done.averaged, final)


if __name__ == "__main__":
    main()
