"""What is left of a run for a person: the table, the report, the baselines beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.files import write_atomic, write_json
from server.report.render import render_report
from server.run import RESULT
from simulation.baselines import BASELINES, baselines_of
from simulation.examples import examples_of
from simulation.progress import Progress
from simulation.run import Simulation, simulate

REPORT = "report.html"


def carry_out(run: Simulation, with_baselines: bool, console: Console) -> str:
    """Run, write the report, print the table; return the result's status."""
    console.print(f"[bold]{run.study.name}[/] into {_shown(run.folder)}", highlight=False)
    result = simulate(run, Progress(console))
    if with_baselines and result["status"] != "failed" and "baselines" not in result:
        result["baselines"] = baselines_of(run, sorted(result["sites"]), console)
        write_json(run.folder / RESULT, result)
    done = result["status"] != "failed"
    page = render_report(result, examples_of(run, sorted(result["final"]["sites"])) if done else [])
    write_atomic(run.folder / REPORT, page.encode())
    if done:
        console.print(table_of(result))
    colour = {"completed": "green", "partial": "yellow", "failed": "red"}[result["status"]]
    console.print(f"[bold {colour}]{result['status']}[/]", highlight=False, end="")
    console.print(escape(f": {result['reason']}") if result["reason"] else "", highlight=False)
    for log in _site_logs(run.folder):
        console.print(f"a site says why in {_shown(log)}", highlight=False)
    console.print(f"result  {_shown(run.folder / RESULT)}", highlight=False)
    console.print(f"report  {_shown(run.folder / REPORT)}", highlight=False)
    return str(result["status"])


def table_of(result: Mapping[str, Any]) -> Table:
    """Return the sites with the headline metric before and after, and the epsilon spent."""
    name = result["headline"]
    kinds = [kind for kind in BASELINES if kind in result.get("baselines", {})]
    private = bool(result["privacy"])
    table = Table(title=f"{result['study']['name']}: {name} on held-out patients")
    table.add_column("site", no_wrap=True)
    for column in ("patients", "before", "after", "95 % interval", *kinds):
        table.add_column(column, justify="right", no_wrap=True)
    if private:
        table.add_column("epsilon spent", justify="right", no_wrap=True)
    for site, about in result["sites"].items():
        after = _of(result["final"]["sites"], site, name)
        row = [
            site,
            str(about["patients_train"]),
            _number(_of(result["initial"]["sites"], site, name).get("value")),
            _number(after.get("value")),
            f"{_number(after.get('low'))} - {_number(after.get('high'))}",
            *(_number(_of(result["baselines"][k]["sites"], site, name)["value"]) for k in kinds),
        ]
        if private:
            row.append(_number(result["privacy"].get(site, {}).get("epsilon"), 2))
        table.add_row(*row)
    table.add_section()
    for title, key in (("mean", "mean"), ("worst site", "worst")):
        values = [result[when][key].get(name) for when in ("initial", "final")]
        ends = [result["baselines"][kind][key].get(name) for kind in kinds]
        table.add_row(title, "", *map(_number, values), "", *map(_number, ends))
    return table


def _of(sites: Mapping[str, Any], site: str, metric: str) -> dict[str, Any]:
    return dict(sites.get(site, {}).get(metric, {"value": None}))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _site_logs(folder: Path) -> list[Path]:
    logs = sorted(folder.glob("sites/*/site.log"))
    return [log for log in logs if " ERROR " in log.read_text()]
