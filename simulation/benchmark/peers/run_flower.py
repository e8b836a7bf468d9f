"""Rounds in Flower: run_simulation with Ray, two actors, its own FedAvg.

    python run_flower.py --clients N --shapes FILE.json --rounds R [--work FOLDER]

run_simulation is the Python entry to the function that `flwr run` calls. The client sends its
ArrayRecord back as it came: Flower decodes a record only where a client asks for its tensors, so
the client's decoding and encoding are not in the time. The server's are.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from measured import (
    ENVIRONMENT,
    WORKERS,
    initial_weights,
    largest_living_mb,
    now_s,
    read_arguments,
    take_stdout,
    write_result,
)

os.environ.update(ENVIRONMENT)

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from numpy.typing import NDArray

TIMEOUT_S = 24 * 3600.0

client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the model that came, trained where there is work."""
    arrays, config = message.content["arrays"], message.content["config"]
    if "work" in config:
        arrays = at_work(arrays, config, int(context.node_config["partition-id"]))
    records = {"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(records), reply_to=message)


def at_work(arrays: ArrayRecord, config: ConfigRecord, place: int) -> ArrayRecord:
    """Return the trained model of a client."""
    from work import trained

    number = int(config["server-round"]) - 1
    return ArrayRecord(trained(arrays.to_numpy_ndarrays(), Path(config["work"]), place, number))


class TimedFedAvg(FedAvg):
    """FedAvg over all clients that notes when rounds end and how many replies it averages."""

    def __init__(self, clients: int) -> None:
        super().__init__(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        self.times_s: list[float] = []
        self.averaged: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note when the first round begins."""
        if not self.times_s:
            self.times_s.append(now_s())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Count the replies that are averaged."""
        replies = list(replies)
        self.averaged.append(sum(not reply.has_error() for reply in replies))
        return super().aggregate_train(server_round, replies)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Note the end of the round, of which this is the last step."""
        answer = super().aggregate_evaluate(server_round, replies)
        self.times_s.append(now_s())
        return answer


def main() -> None:
    """Measure, check, and write the result."""
    asked = read_arguments()
    out = take_stdout()
    # The actors import what the client's function names.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    config = ConfigRecord({"work": str(asked.work)} if asked.work else {})
    strategy = TimedFedAvg(asked.clients)
    final: list[NDArray[np.float32]] = []
    actors_mb: list[float] = []
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord(initial_weights(asked))
        result = strategy.start(grid, arrays, asked.rounds, TIMEOUT_S, train_config=config)
        final.extend(result.arrays.to_numpy_ndarrays())
        actors_mb.append(largest_living_mb())

    run_simulation(
        server,
        client,
        asked.clients,
        backend_config={
            "init_args": {"num_cpus": WORKERS},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    write_result(
        out, "flwr", asked, strategy.times_s, strategy.averaged, final, living_mb=max(actors_mb)
    )


if __name__ == "__main__":
    main()
