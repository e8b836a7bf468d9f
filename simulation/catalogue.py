"""The verbs models and tasks: the networks and the tasks that a study may name."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from common.models.catalogue import catalogue as networks
from common.schema import SettingsError
from common.tasks.catalogue import catalogue as tasks

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]


def show_models(arguments: Sequence[str], console: Console) -> None:
    """Print the networks, as a table or with --json for programs.

    Raises:
        SettingsError: another argument.
    """
    columns: Columns = {
        "name": lambda row: row["name"],
        "task": lambda row: ", ".join(row["tasks"]),
        "dims": lambda row: ", ".join(map(str, row["dims"])),
        "weights 2-D": lambda row: _count(row["parameters"]),
        "weights 3-D": lambda row: _count(row["parameters_3d"]),
        "with privacy": _privacy,
        "source": lambda row: row["source"],
    }
    _show("models", arguments, networks, "model=NAME", columns, console)


def show_tasks(arguments: Sequence[str], console: Console) -> None:
    """Print the tasks, as a table or with --json for programs.

    Raises:
        SettingsError: another argument.
    """
    columns: Columns = {
        "name": lambda row: row["name"],
        "what it answers": lambda row: row["told"],
        "losses": lambda row: ", ".join(row["losses"]),
        "metrics": lambda row: ", ".join(row["metrics"]),
        "with privacy": _privacy,
    }
    _show("tasks", arguments, tasks, "task=NAME", columns, console)


def _show(
    verb: str,
    arguments: Sequence[str],
    rows: Callable[[], Sequence[Row]],
    title: str,
    columns: Columns,
    console: Console,
) -> None:
    if list(arguments) not in ([], ["--json"]):
        raise SettingsError(f"{verb} takes --json or nothing, not {' '.join(arguments)}")
    found = rows()
    if arguments:
        console.print_json(json.dumps(found), indent=1)
        return
    table = Table(title=title)
    for column, cell in columns.items():
        # A name that is cut is none that a study or a policy could be given.
        longest = max(len(word) for row in found for word in cell(row).split())
        table.add_column(column, no_wrap=column == "name", min_width=longest)
    for row in found:
        table.add_row(*(cell(row) for cell in columns.values()))
    console.print(table)


def _privacy(row: Row) -> str:
    return "yes" if row["dp"] else "no"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number / 1e6:.3f} M"
