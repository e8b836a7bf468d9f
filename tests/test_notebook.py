"""docs/notebook.ipynb: its cells run as they stand, and it holds what they show."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from tests.documented import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
MOST_BYTES = 400_000
TINY = """
from pathlib import Path

FOLDER, HOSPITALS = Path("run"), ["university", "memory-clinic", "rural"]
PATIENTS, ROUNDS, STEPS = 8, 1, 1
"""


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_runs_with_a_tiny_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells()):
        own = "parameters" not in cell["metadata"].get("tags", [])
        source = "".join(cell["source"]) if own else TINY
        exec(compile(source, f"cell {number}", "exec"), names)
    assert names["result"]["status"] == "completed"
    assert len(names["table"]) == 4
    assert all((names["answers"] / row.mask).is_file() for row in names["table"])


def test_it_holds_what_its_cells_show_and_nothing_of_a_machine() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = [output for cell in cells for output in cell["outputs"]]
    assert not [of for of in shown if of["output_type"] == "error" or of.get("name") == "stderr"]
    assert len([of for of in shown if "image/png" in of.get("data", {})]) == 3
    assert NOTEBOOK.stat().st_size < MOST_BYTES
