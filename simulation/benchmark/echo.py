"""Rounds in which nobody has work, on one of our engines: what the platform itself costs.

    python -m simulation.benchmark.echo --engine auto --clients 100 --mb 1 --rounds 6

The ServerApp's own run loop (messages, checks, mean, step, checkpoint, events) against a ClientApp
that sends the incoming weights back at once: no data, no training. It prints the object that the
peers' scripts print (simulation/benchmark/peers); simulation.benchmark.engine runs them all.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.config import load_study
from common.contract import Description, EvaluateReply, Released, TrainReply
from common.files import read_json
from common.messages import pack_answer, reply, unpack_request, unpack_weights
from common.state import State
from server.events import EVENTS
from server.run import RESULT, initial_network, shared_state
from simulation.benchmark.peers.measured import (
    WORKERS,
    largest_living_mb,
    now_s,
    peak_rss_mb,
    process_started_s,
)
from simulation.benchmark.table import begin_with_environment
from simulation.config import SimulationConfig
from simulation.engines.run import run_engine

WIDTHS = {"0.4": 16, "1": 26, "4": 52, "30": 142}
"""Channels of the first of three levels of a U-Net, by the megabytes of its weights."""
LOOK_S = 2.0

echo = ClientApp()


@echo.query()
def describe(message: Message, context: Context) -> Message:
    """Answer as a site of ten patients."""
    about = Description(
        site=site_name(context),
        patients_train=10,
        patients_held_out=0,
        images_train=10,
        bad_files=0,
    )
    return reply(pack_answer(Released(body=about)), message)


@echo.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the weights that came."""
    number = unpack_request(message.content).round
    done = TrainReply(site=site_name(context), round=number, patients=10, steps=0, seconds=0.0)
    released = Released(body=done, weights=unpack_weights(message.content))
    return reply(pack_answer(released), message)


@echo.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer that no patient is held out."""
    number = unpack_request(message.content).round
    done = EvaluateReply(site=site_name(context), round=number, seconds=0.0, estimates={})
    return reply(pack_answer(Released(body=done)), message)


def site_name(context: Context) -> str:
    """Return the name of a node's site: its place with leading zeros."""
    return f"{int(context.node_config['partition-id']):04d}"


def model_of(mb: str) -> list[str]:
    """Return the overrides of a network of so many megabytes, one of WIDTHS."""
    width = WIDTHS[mb]
    channels = f"model.channels=[{width},{2 * width},{4 * width}]"
    return ["model=unet", "data=slices", channels, "model.strides=[2,2]", "model.norm_groups=2"]


def weights_of(overrides: list[str]) -> State:
    """Return the weights that travel."""
    study = load_study(overrides)
    return shared_state(study, initial_network(study))


def main() -> None:
    """Measure one engine and print the result."""
    begin_with_environment()
    parser = argparse.ArgumentParser(prog="python -m simulation.benchmark.echo")
    parser.add_argument("--engine", choices=("auto", "ray", "inprocess"), required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--mb", choices=WIDTHS, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    with redirect_stdout(sys.stderr):
        found = measured(options.engine, options.clients, model_of(options.mb), options.rounds)
    sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")


def measured(engine: str, clients: int, model: list[str], rounds: int) -> dict[str, object]:
    """Return what one run costs: ms a round, seconds until the first is done, MB of memory.

    Raises:
        RuntimeError: the run did not complete, so there is nothing to measure.
    """
    overrides = [*model, f"rounds={rounds}", f"evaluate_every={rounds}"]
    children = Children()
    with tempfile.TemporaryDirectory(prefix="wardround-echo-") as name:
        run_echo(Path(name), engine, clients, overrides)
        result = read_json(Path(name) / RESULT)
        starts_s = round_starts_s(Path(name) / EVENTS)
        first_s = starts_s[1] - (time.time() - now_s())
    if result["status"] != "completed":
        raise RuntimeError(f"the empty run ended as {result['status']}: {result['reason']}")
    return {
        "framework": "wardround",
        "version": version("wardround"),
        "clients": clients,
        "mb": sum(tensor.nbytes for tensor in weights_of(model).values()) / 1e6,
        "rounds": rounds,
        "round_ms": [1000 * (later - start) for start, later in pairwise(starts_s)],
        "start_s": first_s - process_started_s(),
        "peak_rss_mb": peak_rss_mb(),
        "children_rss_mb": children.end(),
    }


def run_echo(folder: Path, engine: str, sites: int, overrides: list[str]) -> None:
    """Run the ServerApp in the folder against sites that answer at once."""
    settings = SimulationConfig(engine=engine, actors=WORKERS, source="real")
    run_engine(folder, overrides, [f"{place:04d}" for place in range(sites)], settings, echo)


def round_starts_s(events: Path) -> list[float]:
    """Return when each round began, and at last when the final evaluation did, in s."""
    told = [json.loads(line) for line in events.read_text().splitlines()]
    return [event["time"] for event in told if event["event"] in ("round", "final evaluation")]


class Children:
    """Looks at the processes below one until it is told to end; None: below this one."""

    def __init__(self, above: int | None = None) -> None:
        self._above = above
        self._most_mb, self._over = 0.0, threading.Event()
        self._looker = threading.Thread(target=self._look, daemon=True)
        self._looker.start()

    def end(self) -> float:
        """Return the most memory that one of them had, in MB."""
        self._over.set()
        self._looker.join()
        return self._most_mb

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            self._most_mb = max(self._most_mb, largest_living_mb(self._above))


if __name__ == "__main__":
    main()
