"""What every benchmark shares: its two options, the machine it ran on, its rows in print."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console, JustifyMethod
from rich.table import Table

from simulation.environment import ENVIRONMENT

PIPED_WIDTH = 100
"""Columns of a table that is written to a file or a pipe."""

LISTEN_S, BUSY_CORES = 1.0, 0.2
"""For how long others' work is measured before the rows, and from when on it is warned of."""
STAT = Path("/proc/stat")

Row = Mapping[str, str | int | float]
"""One row by column; every row of a benchmark has the same columns, the first is `name`."""
WHY_NOT = "why_not"
"""The column that says why a row was not measured; empty where it was."""


def begin_with_environment() -> None:
    """Start this program again where a variable of the simulation's ENVIRONMENT is not set.

    Flower reads its telemetry switch once, when it is imported: to set it later has no effect.
    """
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **ENVIRONMENT})


def run_benchmark(
    name: str, about: str, measure: Callable[[bool], list[Row]], arguments: Sequence[str]
) -> None:
    """Measure and write the rows to stdout: a table, or with --json one object and nothing else.

    measure is called with whether --quick was given. One CPU thread; what libraries write to
    stdout in the meantime goes to stderr.
    """
    parser = argparse.ArgumentParser(prog=f"python -m simulation.benchmark.{name}")
    parser.description = about
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rows")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    others = others_cores()
    if others is not None and others > BUSY_CORES:
        sys.stderr.write(
            f"other work takes {others:.1f} cores just now, so what is told in seconds will be too "
            "long; end it and begin again\n"
        )
    with redirect_stdout(sys.stderr):
        rows = measure(options.quick)
    about_machine = {**machine(), "others_cores": "-" if others is None else round(others, 2)}
    if options.json:
        found = {"benchmark": name, "machine": about_machine, "rows": [dict(row) for row in rows]}
        sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(table_of(about, rows))
    for reason in reasons_of(rows):
        console.print(reason, highlight=False, markup=False)
    console.print(
        ", ".join(f"{key} {value}" for key, value in about_machine.items()), highlight=False
    )


def by_turns(
    ways: Mapping[str, Callable[[], object]], turns: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the seconds of each way in each turn; every way has its place in every turn.

    A turn more is run first, to warm up.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, run in ways.items():
            began = clock()
            run()
            if turn:
                seconds[way].append(clock() - began)
    return seconds


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock of a device, in seconds: of the CPU this process's own processor time.

    What a neighbour takes is not in that. A GPU's is the time of day, once it has done its work.
    """
    if device.type == "cpu":
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done


def told_row(row: Row) -> Row:
    """Return a row that took minutes; it is told at once, in case one behind it fails."""
    sys.stderr.write(f"{json.dumps(row)}\n")
    return row


def why_no_gpu() -> str:
    """Return why there is no row of a GPU; empty where there is one."""
    return "" if torch.cuda.is_available() else "PyTorch sees no GPU here"


def reasons_of(rows: Sequence[Row]) -> list[str]:
    """Return a line for each row that was not measured, whole or in part: its name and why."""
    return [f"{row['name']}: {why}" for row in rows if (why := row.get(WHY_NOT))]


def table_of(title: str, rows: Sequence[Row]) -> Table:
    """Return the rows as a table; numbers stand to the right. Why one has none is told apart."""
    table = Table(title=title)
    columns = [column for column in rows[0] if column != WHY_NOT]
    for column in columns:
        value = rows[0][column]
        justify: JustifyMethod = "left" if isinstance(value, str) else "right"
        table.add_column(column, justify=justify, no_wrap=column == "name")
    for row in rows:
        table.add_row(*(_shown(row[column]) for column in columns))
    return table


def machine() -> dict[str, str | int]:
    """Return what the numbers depend on: processors, cores this process may use, versions, day."""
    # Told where there is none too: then no row of a GPU was left out by chance.
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "flwr")},
    }


def others_cores(stat: Path = STAT, listen_s: float = LISTEN_S) -> float | None:
    """Return how many cores are at work while this process waits; None where no kernel tells.

    stat: /proc/stat, or a file of that form.
    """
    if not stat.is_file():
        return None
    began, before = time.monotonic(), _busy_s(stat)
    time.sleep(listen_s)
    return (_busy_s(stat) - before) / (time.monotonic() - began)


def _busy_s(stat: Path) -> float:
    """Return the seconds that all cores have worked, since the machine's start."""
    user, nice, system, _idle, _waiting, *rest = map(
        int, stat.read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")


def cpu_model(cpuinfo: Path) -> str:
    """Return the processor's name in the kernel's list, or its architecture where that is absent.

    cpuinfo: /proc/cpuinfo, or a file of that form.
    """
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _shown(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
