"""An experiment without each site in turn (server/evaluation/left_out.py says what that tells)."""

from typing import Any

from rich.console import Console

from common.files import write_json
from server.evaluation.left_out import row_of, summary_of, table_of
from server.progress import Progress
from simulation.run import Simulation, composed, simulate
from simulation.sites import share_hospitals

FILE, ALL = "leave_one_out.json", "all"


def leave_one_out(run: Simulation, console: Console) -> str:
    """Run with all sites and without each, a folder each; return the worst status.

    Writes leave_one_out.json into the run's folder. What is done is not run again.
    """
    console.print(f"[bold]{run.study.name}[/], with all sites", highlight=False)
    whole = _ran(run, ALL, [], console)
    name = whole["headline"]
    rows = []
    for site, about in whole["sites"].items():
        if not about["patients_held_out"] or not about["patients_train"]:
            continue
        console.print(f"[bold]{run.study.name}[/], without {site}", highlight=False)
        part = _ran(run, f"without-{site}", [f"strategy.tested=[{site}]"], console)
        rows.append(row_of(site, whole, part))
    better = whole["metrics"][name]["higher_is_better"]
    found = {"experiment": run.study.name, "metric": name, "rows": rows}
    write_json(run.folder / FILE, {**found, **summary_of(rows, better)})
    console.print(table_of(rows, better, f"{run.study.name}: {name} of a model without the site"))
    console.print(f"result  {run.folder / FILE}", highlight=False)
    statuses = [whole["status"], *(row["status"] for row in rows)]
    return next((s for s in ("failed", "partial") if s in statuses), "completed")


def _ran(run: Simulation, name: str, asked: list[str], console: Console) -> dict[str, Any]:
    folder = run.folder / name
    if name != ALL:
        share_hospitals(folder, run.folder / ALL)
    return simulate(composed(folder, [*run.overrides, *asked]), Progress(console))
