"""The example in docs/result.md is what its command gives."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.progress import Progress
from simulation.run import composed, simulate
from tests.hospitals import Hospitals

PAGE = Path(__file__).parents[2] / "docs" / "result.md"


def shown() -> list[Any]:
    """Return the two objects of the example."""
    example = PAGE.read_text().partition("## Example")[2]
    block = re.search(r"```json\n(.*?)```", example, re.DOTALL)
    assert block is not None
    text, found = block[1], []
    while text.strip():
        one, end = json.JSONDecoder().raw_decode(text.lstrip())
        found.append(one)
        text = text.lstrip()[end:]
    return found


def alike(one: Any, other: Any) -> bool:
    """Whether two values have the same form, and numbers that differ by rounding alone."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            name == "seconds" or alike(one[name], other[name]) for name in one
        )
    if isinstance(one, float) and isinstance(other, int | float):
        # After some private steps kinds of CPU differ by 1.5 %; another round, by far more.
        return one == pytest.approx(other, rel=5e-2)
    return bool(one == other)


def test_the_example_is_what_its_command_gives(tmp_path: Path, hospitals: Hospitals) -> None:
    settings = ["experiment=smoke", "simulation.engine=inprocess"]
    hospitals.given(tmp_path / "example", *settings)
    run = composed(tmp_path / "example", settings)
    result = json.loads(json.dumps(simulate(run, Progress(Console(quiet=True)))))
    whole, part = shown()
    assert alike(whole, {key: result[key] for key in whole})
    assert alike(part, result["rounds"][0]["sites"]["south"])
