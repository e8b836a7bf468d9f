"""What the processes of a simulation need from the start."""

import signal

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


def stop_on_ctrl_c() -> None:
    """Let Ctrl-C end a worker process; by default it would take the next job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
