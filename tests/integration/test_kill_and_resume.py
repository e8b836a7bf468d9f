"""A run killed with -9 goes on, and ends in the bytes of the run that was never killed."""

import json
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.hospitals import Hospitals
from tests.integration.command import ended, kill, started

ROUNDS = "rounds=4"
DEADLINE_S = 300


def _ended(*arguments: str) -> int | None:
    return ended(started(*arguments), DEADLINE_S)


def _kill_at(process: BaseProcess, folder: Path, event: str, round_number: int) -> None:
    """Kill the process as soon as the run's log has the event."""
    log = folder / "events.jsonl"
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert process.exitcode is None, "the run ended before it could be killed"
        lines = log.read_text().splitlines() if log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        if any(e["event"] == event and e.get("round", 0) >= round_number for e in events):
            kill(process)
            return
        time.sleep(0.01)
    kill(process)
    pytest.fail(f"no event {event!r} within {DEADLINE_S} s")


@pytest.mark.parametrize(
    ("engine", "event", "round_number"),
    [
        ("inprocess", "make", 0),
        ("inprocess", "reply", 2),
        ("inprocess", "final evaluation", 0),
        ("ray", "reply", 2),
    ],
)
def test_a_killed_run_ends_in_the_same_bytes(
    runner: Any,
    whole: tuple[bytes, dict[str, Any]],
    hospitals: Hospitals,
    engine: str,
    event: str,
    round_number: int,
) -> None:
    folder = runner.folder / "killed"
    options = ["experiment=smoke", f"simulation.engine={engine}", ROUNDS, f"run.dir={folder}"]
    options += ["simulation.actors=2"] if engine == "ray" else []
    if event != "make":
        hospitals.given(folder, *options)
    _kill_at(started(*options), folder, event, round_number)
    assert not (folder / "result.json").exists()
    assert _ended("resume", str(folder)) == 0
    result = json.loads((folder / "result.json").read_text())
    weights, uninterrupted = whole
    assert runner.bytes_of("killed") == weights
    assert result["privacy"] == uninterrupted["privacy"]
    assert result["final"] == uninterrupted["final"]
    assert [r["participants"] for r in result["rounds"]] == [["north", "south"]] * 4


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, hospitals: Hospitals
) -> tuple[bytes, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    options = ["experiment=smoke", "simulation.engine=inprocess", ROUNDS, f"run.dir={folder}"]
    hospitals.given(folder, *options)
    assert _ended(*options) == 0
    result = json.loads((folder / "result.json").read_text())
    return (folder / "model.safetensors").read_bytes(), result


def test_a_killed_run_that_sends_steps_goes_on_with_steps(
    tmp_path: Path, hospitals: Hospitals
) -> None:
    smoke = ["experiment=smoke", "simulation.engine=inprocess", ROUNDS, "compression=int4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        hospitals.given(folder, *smoke)
    assert _ended(*smoke, f"run.dir={whole}") == 0
    _kill_at(started(*smoke, f"run.dir={killed}"), killed, "reply", 3)
    assert _ended("resume", str(killed)) == 0
    told = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    one, two = ((folder / "model.safetensors").read_bytes() for folder in (whole, killed))
    assert one == two
    moved = [
        [
            (site["bytes_sent"], site["bytes_received"])
            for each in result["rounds"]
            for site in each["sites"].values()
        ]
        for result in told
    ]
    assert moved[0] == moved[1]
    # From the second round on the model comes as a step too.
    assert all(received < moved[0][0][1] for _, received in moved[0][2:])
