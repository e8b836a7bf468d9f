import random
from pathlib import Path

import pytest
from rich.console import Console

from simulation.chaos.__main__ import SCENARIOS, main, played, table_of
from simulation.chaos.scenario import Scenario, SkippedError, Stage, must


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "made", tmp_path, random.Random(0))


def _holds(stage: Stage) -> str:
    return "all of it"


def _breaks(stage: Stage) -> str:
    must(False, "the bytes are the same")
    return ""


def _lacks(stage: Stage) -> str:
    raise SkippedError("no disk can be mounted")


def test_names_are_given_once_and_the_short_form_is_a_part() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert 3 <= sum(scenario.short for scenario in SCENARIOS) <= 6


def test_what_does_not_hold_is_told_and_so_is_what_could_not_be_played(stage: Stage) -> None:
    plays = {"good": _holds, "bad": _breaks, "odd": _lacks}
    rows = [played(Scenario(name, "done", play), stage) for name, play in plays.items()]
    assert [row.verdict for row in rows] == ["held", "BROKEN", "skipped"]
    console = Console(width=150, record=True, quiet=False)
    with console.capture() as printed:
        console.print(table_of(rows))
    for text in ("all of it", "does not hold: the bytes are the same", "no disk can be mounted"):
        assert text in printed.get()


def test_an_unknown_scenario_is_named_and_nothing_is_played(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "flood"]) == 2
    assert "flood" in capsys.readouterr().err
