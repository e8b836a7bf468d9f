"""The command line, as a process: forked from one that has imported what takes seconds."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from simulation.environment import IMPORTED

DEADLINE_S = 180


NOWHERE = Path(os.devnull)
# pytest imports tests by their paths; the other process finds this file by its name.
sys.path.append(str(Path(__file__).parents[2]))


def started(*arguments: str, output: Path = NOWHERE, errors: Path = NOWHERE) -> BaseProcess:
    """Start wardround-sim in a process group of its own; what it prints goes into the files."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_sim, args=(arguments, dict(os.environ), output, errors))
    process.start()
    return process


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run wardround-sim."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "out", Path(folder) / "errors"
        process = started(*arguments, output=output, errors=errors)
        process.join(DEADLINE_S)
        assert process.exitcode is not None, f"{arguments} did not end within {DEADLINE_S} s"
        told = output.read_text(), errors.read_text()
        return subprocess.CompletedProcess(arguments, process.exitcode, *told)


def _sim(
    arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    sys.argv = ["wardround-sim", *arguments]
    from simulation.cli import main

    sys.exit(main())
