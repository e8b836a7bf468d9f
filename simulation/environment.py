"""What the processes of a simulation need from the start."""

import os
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Thread

from common.kept_memory import keep_freed_memory

# Flower and Ray read these when they are first imported.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray prints a warning about its future default otherwise.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
    # An actor does what this process would do itself; Ray puts its workers behind all others.
    "RAY_worker_niceness": "0",
    # PyTorch's profiler tells of its own start otherwise.
    "KINETO_LOG_LEVEL": "99",
    # A process a hospital: more threads than cores make NumPy three times slower.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


IMPORTED = ["simulation.shift_study"]
"""With it all that a worker process needs comes along."""


def forking() -> ForkServerContext:
    """Return how to start processes that are forked from one that has imported what they need.

    It has done nothing else, and there is one to each process that asks: an import costs seconds of
    a processor, and what is forked from a process that has worked inherits its locks without the
    threads that hold them. A process so begun has the environment of that one.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    # It would look for modules in the current folder first, and in no other of this process's.
    places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    before = dict(os.environ)
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": places}
    try:
        forkserver.ensure_running()
    finally:
        have_environment(before)
    return context


def have_environment(environment: Mapping[str, str]) -> None:
    """Make this the environment of this process."""
    os.environ.clear()
    os.environ.update(environment)


def worker_processes(count: int, most_jobs: int | None = None) -> ProcessPoolExecutor:
    """Return a pool of so many processes, each of which ends after so many jobs, or with this."""
    here = dict(os.environ)
    return ProcessPoolExecutor(count, forking(), _begun, (here,), max_tasks_per_child=most_jobs)


def _begun(environment: Mapping[str, str]) -> None:
    keep_freed_memory()
    have_environment(environment)
    # Ctrl-C ends it; by default it would take the next job.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Of a parent that was killed it would wait for the next job for ever.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
