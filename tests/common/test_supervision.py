import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common import supervision
from common.supervision import Keeper, Part, end_with_supervisor

PR_GET_PDEATHSIG = 2
LONG = "import time; time.sleep(60)"


def until(holds: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def part(program: str, name: str = "a") -> Part:
    return Part(name=name, command=[sys.executable, "-c", program])


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("wardround.test-supervision")


def test_a_part_that_was_killed_runs_again(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.05)
    keeper = Keeper([part(LONG)], log)
    keeper.tend()
    first = keeper.pid_of("a")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: keeper.tend() or keeper.pid_of("a") not in (None, first))
    assert keeper.restarts() == {"a": 1}
    keeper.stop()
    assert keeper.pid_of("a") is None


def test_a_part_that_cannot_live_is_started_ever_more_seldom(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.02)
    keeper = Keeper([part("raise SystemExit(7)")], log)
    with caplog.at_level(logging.WARNING, log.name):
        until(lambda: keeper.tend() or keeper.restarts()["a"] >= 3)
    keeper.stop()
    pauses = [record.args[3] for record in caplog.records if isinstance(record.args, tuple)]
    assert pauses[:3] == [0.02, 0.04, 0.08]
    assert "ended with code 7" in caplog.text


def test_what_a_part_says_is_told_with_its_level(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    line = json.dumps({"level": "error", "text": "own", "part": "x", "time": ""})
    program = f"print({line!r}); print('\x1b[93mWARNING \x1b[0m:   theirs'); print('plain: text')"
    keeper = Keeper([part(program, "talker")], log)
    with caplog.at_level(logging.INFO, log.name):
        keeper.tend()
        until(lambda: "plain: text" in caplog.text)
    keeper.stop()
    said = {r.getMessage(): r.levelname for r in caplog.records if r.name.endswith("talker")}
    assert said == {"own": "ERROR", "theirs": "WARNING", "plain: text": "INFO"}


def test_a_part_ends_with_a_killed_supervisor(tmp_path: Path) -> None:
    child = (
        "from common.supervision import end_with_supervisor; import os, sys, time\n"
        f"end_with_supervisor(); open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    parent = (
        "import logging, sys, time; from common.supervision import Keeper, Part\n"
        f"k = Keeper([Part(name='c', command=[sys.executable, '-c', {child!r}])], logging.root)\n"
        "k.tend(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    process.kill()
    process.wait()
    until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("told", [None, "1"])
def test_a_process_that_a_person_started_is_left_as_it_is(
    told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is None:
        monkeypatch.delenv(supervision.SUPERVISOR, raising=False)
    else:
        monkeypatch.setenv(supervision.SUPERVISOR, told)
    end_with_supervisor()
    signal_at_end = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(signal_at_end))
    assert signal_at_end.value == 0
