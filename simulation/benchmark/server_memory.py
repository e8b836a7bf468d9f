"""The memory of the process of the rounds, by the number of sites, of rounds and of megabytes.

    python -m simulation.benchmark.server_memory [--json] [--quick]

Each row is one process: the run loop of a study as over a network, with the weights in files beside
the messages (server/weights.py), and sites in that process that have no memory of their own: each
answers with a link to the file of the weights that came. So a thousand fit on one machine, and the
peak is the server's (VmHWM). `over_mb` is what it is over the row of as many sites whose model is
next to nothing. What a network and its processes take besides: simulation.benchmark.network.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.config import load_study
from common.contract import Released, TrainReply
from common.messages import pack_answer, put_beside, reply, unpack_request, weights_at
from common.supervision import ENVIRONMENT
from server.calls import Watch
from server.events import event_log
from server.network import Federation
from server.run import reference_to, run_study
from server.weights import DOWN, FOLDER, UP, InFiles
from simulation.benchmark.echo import describe, evaluate, site_name, weights_of
from simulation.benchmark.kept_memory import process_of
from simulation.benchmark.network import MODELS_MB
from simulation.benchmark.peers.measured import peak_rss_mb
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark, told_row
from simulation.engines.grid import SimulatedGrid
from simulation.engines.inprocess import InProcess


@dataclass(frozen=True)
class Case:
    """A study without work: so many sites and rounds, a model of so many MB."""

    sites: int
    rounds: int
    mb: float

    def overrides(self) -> list[str]:
        """Return the study's settings."""
        return [
            "model=unet",
            "data=slices",
            f"model.channels={MODELS_MB[self.mb]}",
            f"rounds={self.rounds}",
            f"evaluate_every={self.rounds}",
        ]


BASE_MB = 0.4
"""Of a model that is next to nothing."""
CASES = (
    Case(2, 3, BASE_MB),
    Case(64, 3, BASE_MB),
    Case(1000, 3, BASE_MB),
    Case(2, 3, 30),
    Case(64, 3, 30),
    Case(1000, 3, 30),
    Case(2, 200, 30),
    Case(2, 3, 300),
    Case(64, 3, 300),
)
CASES_QUICK = (Case(2, 2, BASE_MB), Case(2, 2, 10))


def main() -> None:
    """Measure every case and print the rows."""
    begin_with_environment()
    about = "the process of the rounds: peak RSS in MB, and how many models that is over its base"
    run_benchmark("server_memory", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a case; those of next to no model are the base of the others."""
    rows: list[Row] = []
    base_mb: dict[int, float] = {}
    for case in CASES_QUICK if quick else CASES:
        model_mb = sum(t.nbytes for t in weights_of(case.overrides()).values()) / 1e6
        # As the centre's daemon starts it: above all how freed memory goes back to the system.
        with process_of(ENVIRONMENT, kept=False) as alone:
            rss_mb = alone.submit(peak_mb, case).result()
        over_mb = rss_mb - base_mb.setdefault(case.sites, rss_mb)
        rows.append(
            told_row(
                {
                    "name": f"{model_mb:.1f} MB",
                    "sites": case.sites,
                    "rounds": case.rounds,
                    "rss_mb": rss_mb,
                    "over_mb": over_mb,
                    "models": over_mb / model_mb,
                }
            )
        )
    return rows


def peak_mb(case: Case) -> float:
    """Return the most memory that this process ever had, once it has run the study."""
    with tempfile.TemporaryDirectory(prefix="wardround-memory-") as folder:
        run_case(case, Path(folder))
    return peak_rss_mb()


def run_case(case: Case, folder: Path) -> None:
    """Run the study in the folder.

    Raises:
        RuntimeError: it did not complete, so there is nothing to measure.
    """
    overrides, sites = case.overrides(), [f"{place:04d}" for place in range(case.sites)]
    study = load_study(overrides)
    tell, watch = event_log(folder), Watch(weights=InFiles(folder))
    grid = SimulatedGrid(InProcess(sites_beside(folder), case.sites))
    federation = Federation(grid, reference_to(study, overrides), tell, watch)
    outcome = run_study(study, federation, sites, folder, tell)
    if outcome.status != "completed":
        raise RuntimeError(f"the study without work ended as {outcome.status}: {outcome.reason}")


def sites_beside(folder: Path) -> ClientApp:
    """Return sites that hand in the file of the weights that came, in the folder of the run."""
    down, up = folder / FOLDER / DOWN, folder / FOLDER / UP

    def train(message: Message, context: Context) -> Message:
        site, weights = site_name(context), weights_at(message.content)
        assert weights is not None  # a question that opens a round has some
        number = unpack_request(message.content).round
        done = TrainReply(site=site, round=number, patients=10, steps=0, seconds=0.0)
        (up / site).mkdir(parents=True)
        os.link(down / weights.sha256, up / site / weights.sha256)
        answer = pack_answer(Released(body=done))
        put_beside(answer, weights)
        return reply(answer, message)

    app = ClientApp()
    app.query()(describe)
    app.train()(train)
    app.evaluate()(evaluate)
    return app


if __name__ == "__main__":
    main()
