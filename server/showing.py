"""The result of a study as a table on a terminal, and its report as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.files import write_atomic
from common.pictures import Example
from server.report.render import render_report

REPORT = "report.html"
BASELINES = ("pooled", "local", "ensemble")
COLOURS = {"completed": "green", "partial": "yellow", "stopped": "yellow", "failed": "red"}


def write_report(folder: Path, result: Mapping[str, Any], examples: Sequence[Example] = ()) -> Path:
    """Write a result's page into its folder; return the file."""
    write_atomic(folder / REPORT, render_report(result, examples).encode())
    return folder / REPORT


def show_result(console: Console, result: Mapping[str, Any]) -> None:
    """Print the table, where the study has a model, and how it ended and why."""
    if result["status"] in ("completed", "partial"):
        console.print(table_of(result))
        if "temperature" in result:
            console.print(_temperature(result["temperature"]), highlight=False)
    colour = COLOURS[result["status"]]
    console.print(f"[bold {colour}]{result['status']}[/]", highlight=False, end="")
    console.print(escape(f": {result['reason']}") if result["reason"] else "", highlight=False)


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


def _temperature(found: Mapping[str, Any]) -> str:
    value, likelihoods = found["value"], found["nll"]
    told = ", ".join(f"{of} ({nll:.4f})" for of, nll in likelihoods.items())
    return f"best temperature {value:g}: task.temperature={value:g}; of {told}"


def _of(sites: Mapping[str, Any], site: str, metric: str) -> dict[str, Any]:
    return dict(sites.get(site, {}).get(metric, {"value": None}))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
