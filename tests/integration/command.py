"""The command line, as a process: forked from one that has imported what takes seconds."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from simulation.environment import forking, have_environment

DEADLINE_S = 180


NOWHERE = Path(os.devnull)
# pytest imports tests by their paths; the other process finds this file by its name.
sys.path.append(str(Path(__file__).parents[2]))


def started(*arguments: str, output: Path = NOWHERE, errors: Path = NOWHERE) -> BaseProcess:
    """Start wardround-sim in a process group of its own; what it prints goes into the files."""
    process = forking().Process(target=_sim, args=(arguments, dict(os.environ), output, errors))
    process.start()
    return process


def ended(process: BaseProcess, within_s: float = DEADLINE_S) -> int | None:
    """Wait for a process and return its exit code; None where it did not end, and was killed."""
    process.join(within_s)
    code = process.exitcode
    if code is None:
        kill(process)
    return code


def kill(process: BaseProcess) -> None:
    """Kill a process and all of its group."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run wardround-sim."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "out", Path(folder) / "errors"
        process = started(*arguments, output=output, errors=errors)
        code = ended(process)
        assert code is not None, f"{arguments} did not end within {DEADLINE_S} s"
        told = output.read_text(), errors.read_text()
        return subprocess.CompletedProcess(arguments, code, *told)


def _sim(
    arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
) -> None:
    os.setsid()
    have_environment(environment)
    for path, descriptor in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    sys.argv = ["wardround-sim", *arguments]
    from simulation.cli import main

    sys.exit(main())
