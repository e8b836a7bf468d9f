"""What a hospital that did not join would get: the experiment without each site in turn.

A site that is left out does not train and is tested on the same held-out patients as in the run
with all. Inside minus outside is what its own data did for it: where that is much, the model does
not go beyond the hospitals that made it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from common.files import write_json
from server.progress import Progress
from simulation.run import Simulation, composed, simulate
from simulation.sites import DATA

FILE, ALL = "leave_one_out.json", "all"
Row = Mapping[str, Any]


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
        rows.append(
            {
                "site": site,
                "status": part["status"],
                "inside": _value(whole, site, name),
                "outside": _value(part, site, name),
                "others": _mean_of_others(part, site, name),
            }
        )
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
        # The hospitals are the same ones; nobody changes them.
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / DATA).exists():
            (folder / DATA).symlink_to(Path(os.pardir) / ALL / DATA, target_is_directory=True)
    return simulate(composed(folder, [*run.overrides, *asked]), Progress(console))


def _value(result: Mapping[str, Any], site: str, name: str) -> float | None:
    value: float | None = result["final"]["sites"].get(site, {}).get(name, {}).get("value")
    return value


def _mean_of_others(result: Mapping[str, Any], site: str, name: str) -> float | None:
    values = [_value(result, other, name) for other in result["final"]["sites"] if other != site]
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def gap_of(row: Row, higher_is_better: bool) -> float | None:
    """Return how much better the model is where the site took part; None if it is not known."""
    if row["inside"] is None or row["outside"] is None:
        return None
    gap = row["inside"] - row["outside"]
    return float(gap if higher_is_better else -gap)


def summary_of(rows: Sequence[Row], higher_is_better: bool) -> dict[str, Any]:
    """Return the mean gap, and the site with the largest."""
    gaps = {row["site"]: gap_of(row, higher_is_better) for row in rows}
    known = {site: gap for site, gap in gaps.items() if gap is not None}
    worst = max(known, key=lambda site: known[site], default=None)
    return {
        "gaps": gaps,
        "mean_gap": mean(known.values()) if known else None,
        "largest_gap_at": worst,
    }


def table_of(rows: Sequence[Row], higher_is_better: bool, title: str) -> Table:
    """Return the rows as a table; `gap` is inside minus outside, turned so that more is better."""
    table = Table(title=title)
    table.add_column("left out", no_wrap=True)
    for column in ("inside", "outside", "gap", "other sites"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        values = (row["inside"], row["outside"], gap_of(row, higher_is_better), row["others"])
        table.add_row(row["site"], *map(_number, values))
    table.add_section()
    about = summary_of(rows, higher_is_better)
    means = [_mean([row[key] for row in rows]) for key in ("inside", "outside")]
    table.add_row("mean", *map(_number, [*means, about["mean_gap"]]), "")
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
