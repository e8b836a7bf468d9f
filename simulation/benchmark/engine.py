"""What an engine costs a client message when no client has work: ours, and four peers'.

    python -m simulation.benchmark.engine [--json] [--quick]

Each row is one process: rounds of so many clients that send a model of so many megabytes back as it
came, and a server that averages them. The first round is dropped, it has the start in it; `ms` is
the median of the others over the clients, `lowest` and `highest` the ends, `to_ours` how many
times our row it is. Each peer is installed from PyPI into an environment of its own
(.venv/peers/NAME, a few minutes and 2 GB once) and used as its own guide says for one machine of
two cores; the scripts are in simulation/benchmark/peers.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from simulation.benchmark.echo import WIDTHS, model_of, weights_of
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv" / "peers"
OURS = {"ours": "auto", "ours-ray": "ray"}
"""Rows of our own, by the engine."""
PEERS = ("flower", "pfl", "fluke", "nvflare")
CLIENTS, CLIENTS_QUICK = (10, 100, 1000), (10, 100)
SIZES_QUICK = ("1",)
PEERS_QUICK = ("flower", "pfl", "fluke")
ROUNDS = 6
FEWER_ROUNDS = {"nvflare": 3}
"""Where a round takes minutes."""
LATE = "not done"
"""How a row begins to say that its process took too long."""
LARGE_MB, LARGE_ROUNDS = 10_000, 4
"""Where so many MB are sent in a round, fewer do."""
LIMIT_S = 300.0
"""Of a row's process."""
COPIES = {"flower": 3, "fluke": 2}
"""Models a client that are in memory at once, at least (as read in their code)."""
MOST_CLIENTS = {"nvflare": 100}
"""Its simulator takes no more."""


def main() -> None:
    """Measure every engine, number of clients and size, and print the rows."""
    begin_with_environment()
    about = "engines without work: milliseconds a client message"
    run_benchmark("engine", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row an engine, number of clients and size of the model."""
    sizes, clients = (SIZES_QUICK, CLIENTS_QUICK) if quick else (tuple(WIDTHS), CLIENTS)
    rows: list[Row] = []
    late: dict[str, tuple[int, str]] = {}  # by engine: of how many clients and MB it was
    for mb in sizes:
        for count in clients:
            own_ms: float | None = None
            for engine in (*OURS, *(PEERS_QUICK if quick else PEERS)):
                found = known_late(late.get(engine), count) or result_of(engine, count, mb)
                if isinstance(found, str) and found.startswith(LATE):
                    late[engine] = count, mb
                if engine == "ours" and not isinstance(found, str):
                    own_ms = median(times_ms(found))
                rows.append(row_of(f"{engine}@{count}x{mb}MB", found, own_ms))
    return rows


def known_late(earlier: tuple[int, str] | None, clients: int) -> str:
    """Return why a row is not tried: a smaller one was late; empty if none of as few clients was.

    earlier: clients and megabytes of the smallest row that was late; megabytes only grow.
    """
    if earlier is None or clients < earlier[0]:
        return ""
    return f"not tried: {earlier[0]}x{earlier[1]}MB took too long"


def times_ms(found: Mapping[str, Any]) -> list[float]:
    """Return the milliseconds a client of each round after the first."""
    return [float(ms) / found["clients"] for ms in found["round_ms"][1:]]


def row_of(name: str, found: Mapping[str, Any] | str, own_ms: float | None) -> Row:
    """Return a row: of a result, or of the reason why there is none.

    own_ms: of our row; None where it has none.
    """
    if isinstance(found, str):
        empty = dict.fromkeys(("ms", "lowest", "highest", "to_ours", "start_s", "rss_mb"), "-")
        return {"name": name, **empty, "child_mb": "-", "why_not": found}
    told_ms = times_ms(found)
    return {
        "name": name,
        "ms": median(told_ms),
        "lowest": min(told_ms),
        "highest": max(told_ms),
        "to_ours": "-" if own_ms is None else median(told_ms) / own_ms,
        "start_s": found["start_s"],
        "rss_mb": found["peak_rss_mb"],
        "child_mb": found["children_rss_mb"],
        "why_not": "",
    }


def result_of(engine: str, clients: int, mb: str) -> dict[str, Any] | str:
    """Return what a run of one engine tells, or why there is none."""
    usual = LARGE_ROUNDS if clients * float(mb) >= LARGE_MB else ROUNDS
    rounds = FEWER_ROUNDS.get(engine, usual)
    if engine in OURS:
        asked = ["--engine", OURS[engine], "--mb", mb]
        command = [sys.executable, "-m", "simulation.benchmark.echo", *asked]
        return ran(command, clients, rounds, LIMIT_S)
    why = why_not(engine, clients, float(mb))
    if why:
        return why
    python = installed(engine)
    if isinstance(python, str):
        return python
    with tempfile.TemporaryDirectory(prefix="wardround-engine-") as folder:
        shapes = Path(folder) / "shapes.json"
        tensors = weights_of(model_of(mb)).values()
        shapes.write_text(json.dumps([list(tensor.shape) for tensor in tensors]))
        script = str(HERE / "peers" / f"run_{engine}.py")
        return ran([str(python), script, "--shapes", str(shapes)], clients, rounds, LIMIT_S)


def why_not(peer: str, clients: int, mb: float) -> str:
    """Return why a peer is not run with so many clients and megabytes; empty if it is."""
    if clients > MOST_CLIENTS.get(peer, clients):
        return f"takes {MOST_CLIENTS[peer]} clients at most"
    needed_gb = COPIES.get(peer, 0) * clients * mb / 1000
    here_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if needed_gb > here_gb / 2:
        return f"would need {needed_gb:.0f} GB, here are {here_gb:.0f}"
    return ""


def installed(peer: str) -> Path | str:
    """Return the Python of a peer's environment, made where it lacks; or why there is none."""
    folder = ENVIRONMENTS / peer
    python, done = folder / "bin" / "python", folder / "done"
    if done.exists():
        return python
    listed = HERE / "peers" / f"requirements-{peer}.txt"
    # The list itself tells in its first line how it is installed.
    asked = listed.read_text().splitlines()[0].split("pip install ")[1].split()
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, *asked]):
        made = subprocess.run(command, check=False, cwd=HERE / "peers", stdout=sys.stderr)
        if made.returncode:
            return f"could not be installed ({' '.join(asked)})"
    done.touch()
    return python


def ran(command: Sequence[str], clients: int, rounds: int, limit_s: float) -> dict[str, Any] | str:
    """Return what a script told of so many clients and rounds, or why it did not."""
    asked = [*command, "--clients", str(clients), "--rounds", str(rounds)]
    # A session of its own: whatever it has started ends with it.
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            told, _ = run.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"{LATE} with {rounds} rounds after {limit_s:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    if run.returncode:
        return f"failed with exit code {run.returncode}"
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
