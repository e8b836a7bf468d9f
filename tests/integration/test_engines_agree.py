"""What carries the messages changes no byte: one process, actors, and actors that die."""

import json
import os
import signal
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hospitals import Hospitals
from tests.integration.command import DEADLINE_S, ended, kill, started
from tests.integration.six_hospitals import SITES, Left, asked, left_by, ran

AT_WORK = "ray::Worker.work"
"""What Ray calls an actor's process while it works a message off."""


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, hospitals: Hospitals) -> Left:
    left = ran(tmp_path_factory.mktemp("study") / "one", hospitals, "simulation.engine=inprocess")
    # Else there would be little to compare.
    assert left.result["status"] == "completed"
    assert left.result["privacy"].keys() == left.charges.keys() == SITES
    assert all(
        spent["epsilon"] > 0 and len(left.charges[site]) == left.result["study"]["rounds"]
        for site, spent in left.result["privacy"].items()
    )
    return left


@pytest.mark.parametrize("actors", [1, 2, 4])
def test_actors_however_many_leave_what_one_process_leaves(
    in_process: Left, tmp_path: Path, hospitals: Hospitals, actors: int
) -> None:
    on_ray = ("simulation.engine=ray", f"simulation.actors={actors}")
    assert ran(tmp_path / "actors", hospitals, *on_ray) == in_process


def test_a_study_that_loses_an_actor_leaves_what_an_undisturbed_one_leaves(
    in_process: Left, tmp_path: Path, hospitals: Hospitals
) -> None:
    folder = tmp_path / "loses"
    on_ray = ("simulation.engine=ray", "simulation.actors=2")
    process = started(*asked(folder, hospitals, *on_ray))
    try:
        # In the last round each site goes on from what it kept of the one before.
        _wait_for_round(process, folder, 2)
        _kill_an_actor_at_work(process)
        assert ended(process) == 0
    finally:
        kill(process)
    assert left_by(folder) == in_process
    told = _events(folder)
    names = [event["event"] for event in told]
    assert names.count("actor died") == 1
    death = names.index("actor died")
    # After the last round began and before it ended: all six sites' updates are in it.
    assert max(i for i, name in enumerate(names) if name == "round") < death
    assert death < max(i for i, name in enumerate(names) if name == "round done")
    assert (told[death]["attempt"], told[death]["of"]) == (1, 3)
    assert "Actor" in told[death]["why"]


def _events(folder: Path) -> list[dict[str, Any]]:
    log = folder / "events.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _wait_for_round(process: BaseProcess, folder: Path, round_number: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        assert process.exitcode is None, "the run ended before its actor could be killed"
        if any(e["event"] == "round" and e["round"] == round_number for e in _events(folder)):
            return
        time.sleep(0.01)
    pytest.fail(f"no round {round_number} within {DEADLINE_S} s")


def _kill_an_actor_at_work(run: BaseProcess) -> None:
    """Kill one of the processes that the run began, while it works a message off."""
    end = time.monotonic() + DEADLINE_S
    children = psutil.Process(run.pid).children(recursive=True)
    while time.monotonic() < end:
        for actor in children:
            with suppress(psutil.NoSuchProcess):
                if AT_WORK not in " ".join(actor.cmdline()):
                    continue
                # Stopped first: else it might end its work before the blow.
                actor.send_signal(signal.SIGSTOP)
                if AT_WORK in " ".join(actor.cmdline()):
                    os.kill(actor.pid, signal.SIGKILL)
                    return
                actor.send_signal(signal.SIGCONT)
    pytest.fail("no actor was at work")
