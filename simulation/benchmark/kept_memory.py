"""What a training step costs with each way of the memory that it frees (common/kept_memory.py).

    python -m simulation.benchmark.kept_memory [--json] [--quick]

`libc` is the C library as it is, `daemon` with the settings of a daemon's processes
(common/supervision.py), `kept` with those and then kept, as a trainer's process does: milliseconds
of one thread's processor time a step, medians of five turns, and `faster` the first two over the
third. `pages` are the pages of memory that a step has anew with `daemon`, `pages_k` with `kept`.
`mb`, `mb_d` and `mb_k` are the peaks of the three processes, in which PyTorch and this platform are
more than the half. A step is one pass forward and back, without an optimiser.
"""

import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing import get_context
from statistics import median

import torch

from common.kept_memory import keep_freed_memory
from common.models.registry import build_model
from common.supervision import ENVIRONMENT
from simulation.benchmark.peers.measured import peak_rss_mb
from simulation.benchmark.step_speed import LOADS, QUICK, STEPS, Step, load_of, step_of
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark, told_row
from simulation.environment import have_environment

WAYS: Mapping[str, tuple[Mapping[str, str], bool]] = {
    "libc": ({}, False),
    "daemon": (ENVIRONMENT, False),
    "kept": (ENVIRONMENT, True),
}
"""By name: what is set when the process starts, and whether it keeps its memory."""
TURNS, CALLS = 5, 3


def main() -> None:
    """Measure every network and print the rows."""
    begin_with_environment()
    about = "a training step by what becomes of the memory that it frees"
    run_benchmark("kept_memory", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return a row a network."""
    return [told_row(row_of(name)) for name in LOADS if not quick or name in QUICK]


def row_of(name: str) -> Row:
    """Return what a network's step takes each way, each in a process of its own."""
    with ExitStack() as stack:
        pools = {way: stack.enter_context(process_of(*WAYS[way])) for way in WAYS}
        turns = [
            {way: pool.submit(steps_of, name).result() for way, pool in pools.items()}
            for _ in range(TURNS + 1)
        ][1:]
        peaks_mb = {way: pool.submit(peak_rss_mb).result() for way, pool in pools.items()}
    ms = {way: median(1000 * turn[way][0] for turn in turns) for way in WAYS}
    return {
        "name": name,
        "batch": LOADS[name][1],
        **ms,
        "faster": f"{ms['libc'] / ms['kept']:.2f}, {ms['daemon'] / ms['kept']:.2f}",
        "pages": round(median(turn["daemon"][1] for turn in turns)),
        "pages_k": round(median(turn["kept"][1] for turn in turns)),
        "mb": round(peaks_mb["libc"]),
        "mb_d": round(peaks_mb["daemon"]),
        "mb_k": round(peaks_mb["kept"]),
    }


@contextmanager
def process_of(environment: Mapping[str, str], kept: bool) -> Iterator[ProcessPoolExecutor]:
    """Give a process that was started with the environment, and keeps its memory or does not."""
    here = dict(os.environ)
    with ProcessPoolExecutor(1, get_context("spawn"), _begin, (kept,)) as pool:
        plain = {name: value for name, value in here.items() if not name.startswith("MALLOC_")}
        have_environment({**plain, **environment})
        try:
            # It starts with its first job.
            pool.submit(peak_rss_mb).result()
        finally:
            have_environment(here)
        yield pool


def steps_of(name: str) -> tuple[float, float]:
    """Return the seconds of processor time and the new pages of memory of a step of the network."""
    step = _step(name)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        step()
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    steps = CALLS * STEPS
    return (time.process_time() - began) / steps, pages / steps


def _begin(kept: bool) -> None:
    torch.set_num_threads(1)
    if kept and not keep_freed_memory():
        raise RuntimeError("this C library has no mallopt; the benchmark needs GNU's")


@cache
def _step(name: str) -> Step:
    study, images = load_of(name)
    return step_of(build_model(study.model, study.seed), images, amp=False)


if __name__ == "__main__":
    main()
