import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from simulation.chaos.processes import KINDS, Processes
from simulation.chaos.waiting import until

# A process with a child, which lives on when it is killed.
PARENT = """\
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "client.node", "left"])
time.sleep(600)
"""


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    (tmp_path / "parent.py").write_text(PARENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    processes = Processes(tmp_path / "logs")
    processes.begin("parent", "parent")
    until("both run", lambda: len(processes.all()) == 2, 30.0)
    return processes


def test_an_orphan_is_found_and_ended(family: Processes) -> None:
    parent = next(p for p in family.all() if "parent" in p.cmdline())
    os.kill(parent.pid, signal.SIGKILL)
    orphan = until("it is an orphan", lambda: family.find("node", "left"), 10.0)
    # Of the parent there is a rest until its own parent has read its exit code.
    alone = [orphan]
    until("it is alone", lambda: [process.pid for process in family.all()] == alone or None, 10.0)
    family.end_all()
    assert family.all() == []
    until("it is gone", lambda: not psutil.pid_exists(orphan), 10.0)


def test_another_federations_process_is_not_found(family: Processes, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)", KINDS["trainer"]]
    with subprocess.Popen(command) as stranger:
        assert family.find("trainer") is None
        family.end_all()
        assert stranger.poll() is None
        stranger.kill()


def test_kill_ends_the_process_that_it_names(family: Processes) -> None:
    pid = family.kill("node", "left")
    until("it is gone", lambda: family.find("node") is None, 10.0)
    assert pid not in [process.pid for process in family.all()]
    family.end_all()
