"""The verb models: the networks that a study may name."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from common.models.catalogue import catalogue
from common.schema import SettingsError


def show_models(arguments: Sequence[str], console: Console) -> None:
    """Print the networks, as a table or with --json for programs.

    Raises:
        SettingsError: another argument.
    """
    if list(arguments) not in ([], ["--json"]):
        raise SettingsError(f"models takes --json or nothing, not {' '.join(arguments)}")
    found = catalogue()
    if arguments:
        console.print_json(json.dumps(found), indent=1)
        return
    table = Table(title="model=NAME")
    for column in ("name", "task", "dims", "weights 2-D", "weights 3-D", "with privacy", "source"):
        table.add_column(column, no_wrap=column == "name")
    for row in found:
        table.add_row(
            row["name"],
            ", ".join(row["tasks"]),
            ", ".join(map(str, row["dims"])),
            _count(row["parameters"]),
            _count(row["parameters_3d"]),
            "yes" if row["dp"] else "no",
            row["source"],
        )
    console.print(table)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number / 1e6:.3f} M"
