"""The time of a round in which nobody has work: what the platform itself costs.

    python -m simulation.benchmark.empty_round [--json] [--quick]

The ServerApp's own run loop (messages, checks, mean, step, checkpoint, events) against a ClientApp
that sends the incoming weights back at once: no data, no training. The network has 0.4 MB.
"""

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.config import load_study
from common.contract import Description, EvaluateReply, Released, TrainReply
from common.files import read_json
from common.messages import pack_answer, reply, unpack_request, unpack_weights
from server.events import EVENTS
from server.run import RESULT, initial_network, shared_state
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark
from simulation.config import SimulationConfig
from simulation.engines.run import run_engine

ENGINES = ("inprocess", "ray")
SITES, SITES_QUICK = (4, 16, 64), (4, 16)
ROUNDS, ROUNDS_QUICK = 12, 5
ACTORS = 2
MODEL = ("model=unet", "data=slices")

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
    return f"{int(context.node_config['partition-id']):03d}"


def main() -> None:
    """Measure every engine and number of sites and print the rows."""
    begin_with_environment()
    about = "empty round: milliseconds of a round and of a site in it"
    run_benchmark("empty_round", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row an engine and number of sites."""
    sites, rounds = (SITES_QUICK, ROUNDS_QUICK) if quick else (SITES, ROUNDS)
    return [row_of(engine, count, rounds) for engine in ENGINES for count in sites]


def row_of(engine: str, sites: int, rounds: int) -> Row:
    """Return the time of rounds 2 and later, start to start: the median and the ends.

    Raises:
        RuntimeError: the run did not complete, so there is nothing to measure.
    """
    overrides = [*MODEL, f"rounds={rounds}", f"evaluate_every={rounds}"]
    with tempfile.TemporaryDirectory(prefix="wardround-empty-round-") as name:
        run_echo(Path(name), engine, sites, overrides)
        result = read_json(Path(name) / RESULT)
        starts_s = round_starts_s(Path(name) / EVENTS)
    if result["status"] != "completed":
        raise RuntimeError(f"the empty run ended as {result['status']}: {result['reason']}")
    times_ms = [1000 * (later - start) for start, later in pairwise(starts_s)][1:]
    study = load_study(overrides)
    state = shared_state(study, initial_network(study))
    return {
        "name": f"{engine}, {sites} sites",
        "model_mb": sum(tensor.nbytes for tensor in state.values()) / 1e6,
        "rounds": rounds,
        "ms_per_round": median(times_ms),
        "lowest": min(times_ms),
        "highest": max(times_ms),
        "ms_per_site": median(times_ms) / sites,
    }


def run_echo(folder: Path, engine: str, sites: int, overrides: list[str]) -> None:
    """Run the ServerApp in the folder against sites that answer at once."""
    settings = SimulationConfig(engine=engine, actors=ACTORS, source="real")
    run_engine(folder, overrides, [f"{place:03d}" for place in range(sites)], settings, echo)


def round_starts_s(events: Path) -> list[float]:
    """Return when each round began, and at last when the final evaluation did, in s."""
    told = [json.loads(line) for line in events.read_text().splitlines()]
    return [event["time"] for event in told if event["event"] in ("round", "final evaluation")]


if __name__ == "__main__":
    main()
