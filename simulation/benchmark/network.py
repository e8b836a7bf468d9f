"""The time of a round over real processes and mutual TLS, and the memory of each process.

    python -m simulation.benchmark.network [--json] [--quick]

The daemon of the centre and the nodes of real sites, each a process of its own on this machine,
with trainers that send the weights back at once: what the network, Flower and this platform cost.
The peak is the kernel's (VmHWM) of the largest process of a kind.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread

import psutil

from client.enrolment import enroll, join
from common.config import load_study, study_digest
from common.supervision import ENVIRONMENT, SUPERVISOR, python_module
from server.events import EVENTS
from server.federation.enrolment import admit
from server.federation.home import FederationSettings, Home, make_home
from server.presence import Presence
from server.run import initial_network, shared_state
from server.studies import StudyRun, ask
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

MODELS_MB = {0.4: "[16,32,64]", 10: "[80,160,328]", 30: "[144,288,568]", 300: "[448,896,1824]"}
"""Channels of a U-Net of so many MB."""
CASES = (
    (0.4, 2, 12),
    (30, 2, 6),
    (30, 6, 6),
    (300, 2, 4),
    (300, 6, 4),
    (10, 2, 5),
    (10, 16, 5),
    (10, 64, 5),
    (10, 2, 200),
)
"""Model in MB, sites, rounds."""
CASES_QUICK = ((0.4, 2, 4),)
PARTS = {"link": "link", "serverapp": "app", "node": "node"}
"""Kinds of processes, and what their columns are called."""
SAMPLE_S, PATIENCE_S = 0.2, 3600.0
MEGABYTE = 1e6


def main() -> None:
    """Measure every case and print the rows."""
    begin_with_environment()
    about = "a round over real processes and mutual TLS, without work: seconds, peak RSS in MB"
    run_benchmark("network", about, lambda quick: rows_of(quick), sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a case."""
    return [row_of(*case) for case in (CASES_QUICK if quick else CASES)]


def row_of(model_mb: float, sites: int, rounds: int) -> Row:
    """Return the time of rounds 2 and later, start to start, and the peaks.

    Raises:
        RuntimeError: the study did not complete, so there is nothing to measure.
    """
    overrides = [
        "model=unet",
        "data=slices",
        f"model.channels={MODELS_MB[model_mb]}",
        f"rounds={rounds}",
        f"evaluate_every={rounds}",
    ]
    study = load_study(overrides)
    nbytes = sum(t.nbytes for t in shared_state(study, initial_network(study)).values())
    with tempfile.TemporaryDirectory(prefix="wardround-net-") as name:
        home, states = federation(Path(name), sites)
        with running(home, states) as peaks:
            asked = list(states)
            run = ask(home.path, study.name, study_digest(study), overrides, asked, 600.0)
            await_end(run)
            database = sum(file.stat().st_size for file in home.database.iterdir())
        events = (run.folder / EVENTS).read_text().splitlines()
    status, why = run_status(events)
    if status != "completed":
        raise RuntimeError(f"the study without work ended as {status}: {why}")
    told = [json.loads(line) for line in events]
    starts = [e["time"] for e in told if e["event"] in ("round", "final evaluation")]
    times = [later - start for start, later in pairwise(starts)][1:]
    half = len(times) // 2
    return {
        "name": f"{nbytes / MEGABYTE:.1f} MB",
        "sites": sites,
        "rounds": rounds,
        "s": median(times),
        "lowest": min(times),
        "highest": max(times),
        "late": median(times[half:]) / median(times[:half] or times),
        **{name: peaks.mb[part] for part, name in PARTS.items()},
        "db": database / MEGABYTE,
    }


def run_status(events: list[str]) -> tuple[str, str]:
    """Return how the events say that a study ended, and why."""
    last = json.loads(events[-1])
    return str(last.get("status")), str(last.get("reason"))


@dataclass
class Peaks:
    """The largest peak RSS of each kind of process, in MB."""

    mb: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def sample(self, server_pid: int, node_pids: list[int]) -> None:
        """Look at the processes that live now."""
        for pid in node_pids:
            self._take("node", pid)
        for child in _children(server_pid):
            words = " ".join(_command(child))
            if "server.daemon.link" in words:
                self._take("link", child.pid)
            elif "flwr-serverapp" in words:
                self._take("serverapp", child.pid)

    def _take(self, part: str, pid: int) -> None:
        self.mb[part] = max(self.mb[part], peak_mb(pid))


def peak_mb(pid: int) -> float:
    """Return a process's peak RSS so far, in MB; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 / MEGABYTE if found else 0.0


def federation(folder: Path, sites: int) -> tuple[Home, dict[str, Path]]:
    """Make a centre and so many sites that have joined it; return the state folders by name."""
    now = datetime.now(UTC)
    settings = FederationSettings(name="benchmark", hosts=["127.0.0.1"], port=_free_port())
    home = make_home(folder / "home", settings, now)
    states: dict[str, Path] = {}
    for place in range(sites):
        name = f"site-{place:03d}"
        states[name] = folder / name
        states[name].mkdir()
        admission = admit(home, enroll(states[name], name), name, now)
        join(states[name], admission.to_bytes(), now)
    return home, states


@contextmanager
def running(home: Home, states: dict[str, Path]) -> Iterator[Peaks]:
    """Run the centre, the nodes and their trainers while the block works."""
    peaks, ended = Peaks(), Event()
    ports = ["--health-port", str(_free_port()), "--metrics-port", str(_free_port())]
    where = ["--home", str(home.path), "--listen", "127.0.0.1"]
    sockets = {name: str(state / "trainer.sock") for name, state in states.items()}
    programs = [
        python_module("server.cli", "start", *where, *ports),
        python_module("simulation.benchmark.echo_trainer", *sockets.values()),
        *(python_module("client.node", str(s), sockets[name]) for name, s in states.items()),
    ]
    environment = {**os.environ, **ENVIRONMENT, SUPERVISOR: str(os.getpid())}
    processes = [
        subprocess.Popen(
            program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        for program in programs
    ]

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            peaks.sample(processes[0].pid, [process.pid for process in processes[2:]])

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        _until(lambda: all(Presence(home.path).of(name) for name in states))
        yield peaks
    finally:
        ended.set()
        watcher.join()
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(processes):
            process.wait(60)
        shutil.rmtree(home.database, ignore_errors=True)


def await_end(run: StudyRun) -> None:
    """Wait until a study has ended."""
    _until(lambda: run.status()[0] != "running")


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing came of it within {PATIENCE_S:g} s")
        time.sleep(SAMPLE_S)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()
