"""Every method on every data set, several seeds: one table of what helps against domain shift.

Rows are methods; some are models of one and the same run, whose local, personal, pooled and
ensemble models stand beside the federated one. Each run has a folder of its own, and one that is
done, there or in a file of outcomes (simulation/outcomes.py), is not done again.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common.files import write_json
from server.showing import BASELINES
from simulation.environment import worker_processes
from simulation.outcomes import (
    Outcome,
    key_of,
    outcome_of,
    read_outcomes,
    told_makers,
    write_outcomes,
)
from simulation.run import Simulation, composed
from simulation.shift_table import COMPLETED, curves_of, rows_of, summaries_of, tables_of
from simulation.show import carried_out
from simulation.table_config import TableConfig

ONE_PROCESS = ("simulation.engine=inprocess", "simulation.actors=1")
"""Of each run: several run at once, and the engine does not change the bytes."""


@dataclass(frozen=True)
class Cell:
    """One run: a method on a data set with a seed, with all sites or without one."""

    experiment: str
    row: str
    seed: int
    without: str | None
    overrides: tuple[str, ...]
    baselines: bool
    """Whether its pooled and ensemble models are asked for."""

    @property
    def place(self) -> Path:
        """Where its folder lies below the study's."""
        name = f"seed-{self.seed}" if self.without is None else f"without-{self.without}"
        return Path(self.experiment, self.row, name)


def run_shift_study(folder: Path, run: Simulation, console: Console) -> str:
    """Run what is not done yet, print the tables, write them as JSON; return the status.

    Raises:
        SettingsError: the settings of a run do not fit together; nothing was run then.
    """
    table = run.settings.table_config()
    folder = folder.resolve()
    kept = folder / f"{run.study.name}.runs.jsonl"
    known = read_outcomes(kept) if kept.is_file() else {}
    known |= {} if table.known is None else read_outcomes(Path(table.known))
    cells = cells_of(table, [*_common(run.overrides), *ONE_PROCESS])
    runs = {cell: composed(folder / cell.place, cell.overrides) for cell in cells}
    keys = {cell: key_of(each, cell.baselines) for cell, each in runs.items()}
    found = {cell: known[key] for cell, key in keys.items() if key in known}
    console.print(f"[bold]{run.study.name}[/], {len(runs)} runs into {folder}", highlight=False)
    if found:
        console.print(f"known: {told_makers(found.values())}", highlight=False, markup=False)
    waiting = {cell: key for cell, key in keys.items() if cell not in found}
    for cell, outcome in _made(folder, waiting, run.settings.actors):
        found[cell] = outcome
        _keep(kept, known, found.values())
        why = f": {outcome.reason}" if outcome.reason else ""
        told = f"{len(found)} of {len(runs)}: {cell.place} {outcome.status}{why}"
        console.print(told, highlight=False, markup=False)
    by_place = {(c.experiment, c.row, c.seed, c.without): of for c, of in found.items()}
    rows = rows_of(table, by_place)
    summaries = summaries_of(rows)
    file = folder / f"{run.study.name}.json"
    write_json(file, {"seeds": table.seeds, "rows": rows, "summaries": summaries})
    for each in (*tables_of(rows, summaries), *(curves_of(rows) if table.curve else ())):
        console.print(each)
    console.print(f"result  {file}", highlight=False)
    statuses = {outcome.status for outcome in found.values()}
    return next((s for s in ("failed", "partial") if s in statuses), COMPLETED)


def _made(
    folder: Path, waiting: Mapping[Cell, str], processes: int
) -> Iterator[tuple[Cell, Outcome]]:
    with worker_processes(processes, most_jobs=1) as pool:
        futures: dict[Future[Outcome], Cell] = {
            pool.submit(_ran, folder / cell.place, cell, key): cell for cell, key in waiting.items()
        }
        for future in as_completed(futures):
            yield futures[future], future.result()


def _keep(file: Path, known: Mapping[str, Outcome], found: Iterable[Outcome]) -> None:
    """Write what is known and what was found, also of runs that this table has not."""
    complete = {outcome.key: outcome for outcome in found if outcome.status == COMPLETED}
    write_outcomes(file, {**known, **complete}.values())


def cells_of(table: TableConfig, common: Sequence[str]) -> list[Cell]:
    """Return all runs of the table, a seed after the other. common: overrides of every one."""
    return [
        cell
        for seed in table.seeds
        for experiment in table.data_sets()
        for row, about in table.method_rows().items()
        if not about.run and experiment not in about.not_at
        for cell in _cells(table, experiment, row, seed, common)
    ]


def _cells(
    table: TableConfig, experiment: str, row: str, seed: int, common: Sequence[str]
) -> Iterator[Cell]:
    data_set, method = table.data_sets()[experiment], table.method_rows()[row]
    read = {about.model for name, about in table.method_rows().items() if row in (name, about.run)}
    baselines = bool(read & set(BASELINES))
    overrides = (
        f"experiment={experiment}",
        *data_set.settings,
        *method.settings,
        *method.at.get(experiment, []),
        *common,
        f"seed={seed}",
    )
    if data_set.whole:
        yield Cell(experiment, row, seed, None, overrides, baselines)
    if not method.left_out:
        return
    # A site that is left out has no model of its own to compare with.
    shared = [override for override in overrides if not override.startswith("evaluation")]
    for site in data_set.left_out[table.seeds.index(seed) :: len(table.seeds)]:
        left_out = f"[{site}]" if data_set.left_out_by == "strategy.tested" else site
        without = (*shared, f"{data_set.left_out_by}={left_out}")
        yield Cell(experiment, row, seed, site, without, baselines)


def _common(overrides: Sequence[str]) -> list[str]:
    """Return what of the command's overrides holds for each run."""
    own = ("experiment=", "simulation.table", "simulation.actors=", "seed=")
    return [override for override in overrides if not override.startswith(own)]


def _ran(folder: Path, cell: Cell, key: str) -> Outcome:
    with open(os.devnull, "w") as nowhere:
        run = composed(folder, cell.overrides)
        result = carried_out(run, cell.baselines, Console(file=nowhere))
    return outcome_of(result, str(cell.place), key)
