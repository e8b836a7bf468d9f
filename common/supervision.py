"""Processes that are kept running: started again when they die, ended with their supervisor."""

import ctypes
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

# What every process of a daemon gets: no telemetry, no downloads, no proxy between its own parts.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONUNBUFFERED": "1",
    # Blocks of a model go back to the system when they are free: without this a process keeps twice
    # as much, an arena a thread.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 0.5, 30.0, 60.0
PARENT_LOOK_S = 0.2
SUPERVISOR = "WARDROUND_SUPERVISOR"
OWNER_ALONE = 0o077
"""The umask of a daemon: what it writes is nobody else's to read."""
PR_SET_PDEATHSIG = 1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process of a daemon."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Keeper:
    """Keeps the parts running, with a pause that doubles while a part dies again and again."""

    def __init__(self, parts: Sequence[Part], log: logging.Logger) -> None:
        self._log = log
        self._kept = [_Kept(part, log) for part in parts]

    def tend(self) -> None:
        """Start what is not running and whose pause is over; to be called again and again."""
        for kept in self._kept:
            kept.tend()

    def pid_of(self, name: str) -> int | None:
        """Return the process of a part, None while it does not run."""
        return next(kept.pid for kept in self._kept if kept.part.name == name)

    def restarts(self) -> dict[str, int]:
        """Return how often each part was started after the first time."""
        return {kept.part.name: max(0, kept.starts - 1) for kept in self._kept}

    def stop(self, grace_s: float = 10.0) -> None:
        """End all parts, the last one first; what does not end in time is killed."""
        for kept in reversed(self._kept):
            kept.terminate()
        deadline = time.monotonic() + grace_s
        for kept in reversed(self._kept):
            kept.wait(deadline)


class _Kept:
    def __init__(self, part: Part, log: logging.Logger) -> None:
        self.part = part
        self.starts = 0
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._began = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def tend(self) -> None:
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            lived = now - self._began
            self._pause_s = FIRST_PAUSE_S if lived > STEADY_S else self._pause_s
            self._log.warning(
                "%s ended with code %d after %.0f s; it is started again in %.1f s",
                self.part.name,
                self._process.returncode,
                lived,
                self._pause_s,
            )
            self._not_before = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._process = None
        if self._process is None and now >= self._not_before:
            self._start()

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._began = time.monotonic()
        self.starts += 1
        self._process = subprocess.Popen(
            list(self.part.command),
            env={
                **os.environ,
                **ENVIRONMENT,
                **self.part.environment,
                # Flower looks for its own programs there.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                SUPERVISOR: str(os.getpid()),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._log.info("%s started", self.part.name, extra={"pid": self._process.pid})
        Thread(target=self._relay, args=(self._process,), daemon=True).start()

    def _relay(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        log = logging.getLogger(f"{self._log.name}.{self.part.name}")
        for line in process.stdout:
            text = line.rstrip()
            if text:
                log.log(*_level_and_text(text))


def _level_and_text(line: str) -> tuple[int, str]:
    """Read a line of our own JSON log, or take any other line as it is, without its colours."""
    levels = logging.getLevelNamesMapping()
    try:
        told = json.loads(line)
        text = told["text"] + (f"\n{told['error']}" if "error" in told else "")
        return levels[told["level"].upper()], text
    except (ValueError, KeyError, TypeError, AttributeError):
        plain = _COLOURS.sub("", line)
    # As Flower writes it: INFO :      text
    name, colon, text = plain.partition(":")
    if colon and name.strip() in levels:
        return levels[name.strip()], text.strip()
    return logging.INFO, plain


def python_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def beside_python(name: str) -> str:
    """Return the path of a program that was installed beside this interpreter."""
    return str(Path(sys.executable).parent / name)


def end_with_parent() -> None:
    """End this process soon after the one that began it, killed or not.

    For a process that a thread of another program began: the kernel would end it with that thread.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_LOOK_S)
        os._exit(1)

    Thread(target=watch, daemon=True, name="parent").start()


def end_with_supervisor() -> None:
    """Have the kernel end this process when its supervisor dies, killed or not (Linux).

    A process that a person started is left as it is.
    """
    parent = os.getppid()
    if os.environ.get(SUPERVISOR) != str(parent):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
