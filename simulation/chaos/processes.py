"""The processes of a federation: begun, found by what they are, and ended by their numbers.

All of them carry a mark in their environment, which a process hands down to those that it begins.
So an orphan is found too, and nobody else's process is ever touched.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from common.supervision import ENVIRONMENT
from simulation.chaos.waiting import until

MARK = "WARDROUND_CHAOS"
KINDS: dict[str, str] = {
    "server": "server.cli start",
    "link": "server.daemon.link",
    "exec": "flower-superexec",
    "serverapp": "flwr-serverapp",
    "site": "client.cli start",
    "node": "client.node",
    "trainer": "client.cli trainer",
}
"""What stands in the command of each kind of process."""
END_S = 20.0


class Processes:
    """The processes of one federation."""

    def __init__(self, logs: Path) -> None:
        """logs: folder for what they print."""
        self._mark = uuid.uuid4().hex
        self._logs = logs
        self._children: list[subprocess.Popen[bytes]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def begin(
        self, name: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> int:
        """Begin a Python module as a process of its own group; return its number."""
        with (self._logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **ENVIRONMENT, MARK: self._mark, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        return child.pid

    def all(self) -> list[psutil.Process]:
        """Return every process that lives, orphans too."""
        self._reap()
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def find(self, kind: str, of: str = "") -> int | None:
        """Return the number of the process of a kind; None while there is none.

        of: also stands in its command, as a site's folder.
        """
        found = [p.pid for p in self.all() if KINDS[kind] in (told := _command(p)) and of in told]
        return found[0] if found else None

    def kill(self, kind: str, of: str = "", deadline_s: float = 60.0) -> int:
        """Kill the process of a kind with -9, as soon as there is one; return its number."""
        pid = until(f"a {kind} runs", lambda: self.find(kind, of), deadline_s)
        os.kill(pid, signal.SIGKILL)
        return pid

    def end(self, pid: int) -> None:
        """End a process, and wait until it has ended; what does not end in time is killed."""
        try:
            process = psutil.Process(pid)
            process.terminate()
            process.wait(END_S)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            process.kill()
        self._reap()

    def end_all(self) -> None:
        """End everything, those that were begun here first."""
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        for child in self._children:
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for process in self.all():
            process.kill()
        # An orphan is not ours to wait for, and lives on for a moment.
        until("all have ended", lambda: not self.all(), END_S)

    def _reap(self) -> None:
        for child in self._children:
            child.poll()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get(MARK) == self._mark
        except (psutil.Error, OSError):
            return False


def _command(process: psutil.Process) -> str:
    try:
        command: Sequence[str] = process.cmdline()
    except psutil.Error:
        return ""
    return " ".join(command)
