"""Trainer services of tiny hospitals, in this process and in one of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from client.log import LOG
from client.remote import is_serving
from tests.builders import PICTURES, PRIVATE, pictures_site

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
SGD = (*PICTURES, "training.optimizer=sgd")
LONG = (*SGD, "training.local_steps=1000000")
PRIVATE_ROUND = (*SGD, *PRIVATE, "training.local_steps=30")


def until(holds: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.01)


def hospital(folder: Path, sockets: Path, **settings: object) -> Path:
    """Write a site whose trainer's socket has a short path; return its site.yaml."""
    path = pictures_site(folder)
    values = yaml.safe_load(path.read_text())
    socket = sockets / folder.name / "t.sock"
    path.write_text(yaml.safe_dump({**values, "socket": str(socket), **settings}))
    return path


def socket_of(site: Path) -> Path:
    """Return where a site's trainer listens."""
    return Path(yaml.safe_load(site.read_text())["socket"])


def log_of(site: Path) -> str:
    """Return the site's own log."""
    return (site.parent / LOG).read_text()


def started(site: Path) -> subprocess.Popen[str]:
    """Start a trainer in a process of its own; return when it answers."""
    words = [sys.executable, "-m", "client.cli", "trainer", "--site", str(site)]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until(lambda: process.poll() is not None or is_serving(socket_of(site)))
    assert process.poll() is None, process.stderr and process.stderr.read()
    return process


def ended(process: subprocess.Popen[str], by: signal.Signals) -> int:
    """End a process by a signal and return its exit code."""
    os.kill(process.pid, by)
    process.communicate(timeout=DEADLINE_S)
    return process.returncode


@contextmanager
def own_process(site: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a trainer in a process of its own; it is killed at the end."""
    process = started(site)
    try:
        yield process
    finally:
        if process.poll() is None:
            ended(process, signal.SIGKILL)


def decide(verb: str, site: Path, digest: str) -> None:
    """Have the data officer approve or reject a study."""
    words = [sys.executable, "-m", "client.cli", verb, digest[:16], "--site", str(site)]
    told = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert digest in told


def with_approvals(site: Path) -> None:
    """Let a site's policy have no study approved beforehand."""
    policy = site.parent / "policy.yaml"
    values = yaml.safe_load(policy.read_text())
    values["studies"]["approved"] = []
    policy.write_text(yaml.safe_dump(values))
