"""Hospitals that train at once against one after another: on this machine's cores, and on one GPU.

    python -m simulation.benchmark.parallel [--json] [--quick]

Each row is one process: eight hospitals of 20 images of 64 x 64 pixels, a ResNet-18, four rounds of
20 steps of 16 images, on so many actors; on a GPU each actor has its share of the one. `round_s` is
the median of the rounds after the first, `faster` how many times as fast that is as with one actor
on the same device.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from server.events import EVENTS
from simulation.benchmark.echo import round_starts_s
from simulation.benchmark.scale import write_data
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark, why_no_gpu

HOSPITALS, HOSPITALS_QUICK = 8, 2
STEPS, STEPS_QUICK = 20, 2
ROUNDS, SIDE = 4, 64
ON_A_GPU = (1, 2, 4)
STUDY = (
    "simulation=real",
    "task=classification",
    "data=pictures",
    f"data.size=[{SIDE},{SIDE}]",
    "model=resnet18",
    "training.batch_size=16",
    f"rounds={ROUNDS}",
    f"evaluate_every={ROUNDS}",
    "simulation.engine=ray",
    "+simulation.partition.mask_column=null",
)


def main() -> None:
    """Measure each number of actors and print the rows."""
    begin_with_environment()
    run_benchmark("parallel", "hospitals at once: seconds a round", rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a device and number of actors."""
    hospitals, steps = (HOSPITALS_QUICK, STEPS_QUICK) if quick else (HOSPITALS, STEPS)
    cores = len(os.sched_getaffinity(0))
    why_not = why_no_gpu()
    with tempfile.TemporaryDirectory(prefix="wardround-parallel-") as name:
        data = Path(name) / "data"
        write_data(data, hospitals, SIDE)
        study = [*STUDY, f"training.local_steps={steps}", f"data.root={data}"]
        rows = rows_on("cores", study, sorted({1, cores}), 0.0)
        if why_not:
            empty = {"actors": "-", "round_s": "-", "faster": "-", "why_not": why_not}
            return [*rows, *({"name": f"gpu x{actors}", **empty} for actors in ON_A_GPU)]
        return rows + rows_on("gpu", study, ON_A_GPU, 1.0)


def rows_on(device: str, study: Sequence[str], numbers: Sequence[int], gpus: float) -> list[Row]:
    """Return the rows of a device. gpus: that the actors share."""
    times_s = {actors: round_s(study, actors, gpus / actors) for actors in numbers}
    return [
        {
            "name": f"{device} x{actors}",
            "actors": actors,
            "round_s": seconds,
            "faster": times_s[numbers[0]] / seconds,
            "why_not": "",
        }
        for actors, seconds in times_s.items()
    ]


def round_s(study: Sequence[str], actors: int, gpus: float) -> float:
    """Return the seconds of a later round of a run, the median.

    Raises:
        CalledProcessError: the run did not complete, so there is nothing to measure.
    """
    with tempfile.TemporaryDirectory(prefix="wardround-parallel-") as name:
        run = Path(name) / "run"
        asked = [f"simulation.actors={actors}", f"simulation.gpus_per_actor={gpus}"]
        command = [sys.executable, "-m", "simulation.cli", *study, *asked, f"run.dir={run}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        starts_s = round_starts_s(run / EVENTS)
    return median([later - start for start, later in pairwise(starts_s)][1:])


if __name__ == "__main__":
    main()
