"""What `wardround-sim models` and `tasks` print."""

import io
import json

from rich.console import Console

from simulation.catalogue import show_models, show_tasks


def test_no_name_is_cut_in_a_narrow_table() -> None:
    for show, names in ((show_tasks, ("losses", "metrics")), (show_models, ("tasks",))):
        table, rows = (Console(file=io.StringIO(), width=120) for _ in range(2))
        show([], table)
        show(["--json"], rows)
        for row in json.loads(rows.file.getvalue()):
            words = table.file.getvalue().replace(",", " ").split()
            assert {row["name"], *(one for name in names for one in row[name])} <= set(words)
