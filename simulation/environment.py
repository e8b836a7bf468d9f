"""What the processes of a simulation need from the start."""

import os
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

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


def worker_processes(count: int, most_jobs: int | None = None) -> ProcessPoolExecutor:
    """Return a pool of so many processes, each of which ends after so many jobs.

    They are forked from one that has imported what they need and done nothing else: an import costs
    ten seconds of a processor, and what is forked from a process that has worked inherits its
    locks without the threads that hold them.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    here = dict(os.environ)
    return ProcessPoolExecutor(count, context, _begun, (here,), max_tasks_per_child=most_jobs)


def _begun(environment: Mapping[str, str]) -> None:
    # The process that it was forked from may be older than this one's environment.
    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C ends it; by default it would take the next job.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
