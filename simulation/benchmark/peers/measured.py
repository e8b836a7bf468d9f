"""What the peers' scripts share: the command line, a clock, the memory, the JSON at the end.

The scripts run where wardround is not installed, each with this folder first on its path.
"""

import argparse
import json
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

INITIAL, FINAL = "initial.npz", "final.npz"
"""In the folder of the work: the model before the first round, and after the last."""

WORKERS = 2
"""Processes, actors or threads of the engines that have any: one a core."""

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
"""Set before the frameworks are imported: they read it once."""


@dataclass(frozen=True)
class Asked:
    """What to measure: clients in each round, the shapes of the float32 model, rounds.

    work: the folder of the clients' work (work.py); None: they send back what came.
    """

    clients: int
    shapes: tuple[tuple[int, ...], ...]
    rounds: int
    work: Path | None

    @property
    def mb(self) -> float:
        """Return the size of the model in 10^6 bytes."""
        return 4e-6 * sum(math.prod(shape) for shape in self.shapes)


def read_arguments() -> Asked:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--shapes", type=Path, required=True, help="JSON list of tensor shapes")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--work", type=Path, help="folder of the clients' work; else they echo")
    options = parser.parse_args()
    shapes = tuple(tuple(shape) for shape in json.loads(options.shapes.read_text()))
    return Asked(options.clients, shapes, options.rounds, options.work)


def initial_weights(asked: Asked) -> list[NDArray[np.float32]]:
    """Return the model that the first round begins with: the work's, or random numbers."""
    if asked.work:
        return arrays_in(asked.work / INITIAL)
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) for shape in asked.shapes]


def arrays_in(path: Path) -> list[NDArray[np.float32]]:
    """Return the arrays of a file of numpy.savez, in the order in which they were given to it."""
    with np.load(path) as arrays:
        return [arrays[f"arr_{place}"] for place in range(len(arrays))]


def take_stdout() -> TextIO:
    """Return stdout for the result alone; all else, child processes too, writes to stderr."""
    result = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return result


def now_s() -> float:
    """Return the time since the machine started, the same in all of its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_started_s() -> float:
    """Return when this process was started, on the clock of now_s, to 10 ms."""
    # After the name, which may hold spaces; proc(5) counts from 1 and starttime is the 22nd.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")


def write_result(
    out: TextIO,
    package: str,
    asked: Asked,
    times_s: Sequence[float],
    averaged: Sequence[int],
    final: Sequence[NDArray[np.float32]],
    living_mb: float = 0.0,
) -> None:
    """Write the JSON object, or end the process with a message if the work was not done.

    times_s: when the first round began and when each ended, on the clock of now_s.
    averaged: how many updates were averaged in each round.
    final: the model after the last round: without work the initial one, with work kept there.
    living_mb: what largest_living_mb said, of an engine that does not wait for its processes.
    children_rss_mb is the peak of the largest process under this one, not their sum.
    """
    if len(times_s) != asked.rounds + 1:
        sys.exit(f"{asked.rounds} rounds were asked for and {len(times_s) - 1} ended")
    if list(averaged) != [asked.clients] * asked.rounds:
        sys.exit(f"{asked.clients} updates a round were due and {list(averaged)} were averaged")
    if asked.work:
        np.savez(asked.work / FINAL, *final)
    elif not _same(initial_weights(asked), final):
        sys.exit("every client sent the model back and yet their average is another model")
    result = {
        "framework": package,
        "version": version(package),
        "clients": asked.clients,
        "mb": asked.mb,
        "rounds": asked.rounds,
        "round_ms": [1000 * (end - begin) for begin, end in pairwise(times_s)],
        "start_s": times_s[1] - process_started_s(),
        "peak_rss_mb": peak_rss_mb(),
        "children_rss_mb": max(living_mb, largest_ended_mb()),
    }
    out.write(json.dumps(result, allow_nan=False) + "\n")
    out.flush()


def _same(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.allclose(mine, yours, rtol=1e-4, atol=1e-6) for mine, yours in pairs)


def peak_rss_mb() -> float:
    """Return the most memory that this process ever had.

    Not ru_maxrss: that begins with the memory of the process that started this one.
    """
    return int(_status(Path("/proc/self/status"))["VmHWM"].split()[0]) * 1024e-6


def largest_ended_mb() -> float:
    """Return the most memory that a child of this process had that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024e-6


def largest_living_mb(above: int | None = None) -> float:
    """Return the peak of the largest process that is alive under one; None: under this one."""
    top = os.getpid() if above is None else above
    statuses = [_status(path) for path in Path("/proc").glob("[0-9]*/status")]
    parents = {int(status["Pid"]): int(status["PPid"]) for status in statuses if status}
    below = {top}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return max(
        (
            int(status["VmHWM"].split()[0]) * 1024e-6
            for status in statuses
            if "VmHWM" in status and int(status["Pid"]) in below - {top}
        ),
        default=0.0,
    )


def _status(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # it has ended in the meantime
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
