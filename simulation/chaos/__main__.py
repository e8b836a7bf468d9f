"""The chaos suite: a centre and three sites as real processes, and all that can happen to them.

    python -m simulation.chaos                  every scenario
    python -m simulation.chaos --short          those that a change must pass
    python -m simulation.chaos --only "kill node" --only "slow link"
    python -m simulation.chaos --seed 7         other moments

Exit code 1 if a scenario does not hold.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulation.environment import ENVIRONMENT

# Flower reads its switches when it is first imported.
os.environ.update(ENVIRONMENT)

import torch
from rich.console import Console
from rich.table import Table

from simulation.chaos import answers, kills, machines, networks
from simulation.chaos.hospitals import make_hospitals
from simulation.chaos.scenario import Scenario, SkippedError, Stage

WIDTH, ENDED = 150, 143
SCENARIOS = [
    *kills.SCENARIOS,
    *networks.SCENARIOS,
    *answers.SCENARIOS,
    *machines.SCENARIOS,
]
HELD, BROKEN, SKIPPED = "held", "BROKEN", "skipped"


@dataclass(frozen=True)
class Played:
    """How a scenario went."""

    scenario: Scenario
    verdict: str
    """held, BROKEN or skipped."""
    text: str
    """What held, what did not, or what this machine lacks."""
    seconds: float


def played(scenario: Scenario, stage: Stage) -> Played:
    """Play a scenario; after one that did not hold the next begins with a new federation."""
    began = time.monotonic()
    try:
        verdict, text = HELD, scenario.play(stage)
    except SkippedError as why:
        verdict, text = SKIPPED, str(why)
    except Exception as error:
        traceback.print_exc()
        verdict, text = BROKEN, f"{type(error).__name__}: {error}"
        stage.give_up_shared()
    return Played(scenario, verdict, text, time.monotonic() - began)


def table_of(rows: Sequence[Played]) -> Table:
    """Return the printed table."""
    table = Table("scenario", "what was done", "", "what held")
    table.add_column("s", justify="right")
    for row in rows:
        about = row.scenario
        table.add_row(about.name, about.done, row.verdict, row.text, f"{row.seconds:.0f}")
    return table


def main(arguments: Sequence[str]) -> int:
    """Play scenarios and print the table; return the exit code."""
    options = _options(arguments)
    torch.set_num_threads(1)
    # So that an end from outside ends all processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    wanted = options.only or [each.name for each in SCENARIOS if each.short or not options.short]
    unknown = sorted(set(wanted) - {each.name for each in SCENARIOS})
    if unknown:
        known = ", ".join(each.name for each in SCENARIOS)
        sys.stderr.write(f"no scenario is called {', '.join(unknown)}; there are: {known}\n")
        return 2
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    # A Unix socket's path is short, so the folder's must be.
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    stage = Stage(make_hospitals(folder / "made"), folder, random.Random(options.seed))
    rows: list[Played] = []
    try:
        for scenario in SCENARIOS:
            if scenario.name in wanted:
                rows.append(played(scenario, stage))
                last = rows[-1]
                console.print(f"{last.verdict:8}{scenario.name}: {last.text}", markup=False)
    finally:
        stage.give_up_shared()
    console.print(table_of(rows))
    failed = [row for row in rows if row.verdict == BROKEN]
    if failed:
        console.print(f"the logs are in {folder}", markup=False)
    else:
        shutil.rmtree(folder)
    return 1 if failed else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="those that a change must pass")
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; repeat")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; 0 by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
