"""A study small enough to run whole, many times."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.progress import Progress
from simulation.run import composed, simulate

TINY = ["experiment=smoke", "simulation.engine=inprocess"]


class Runner:
    """Runs studies below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, *overrides: str) -> dict[str, Any]:
        run = composed(self.folder / name, [*TINY, *overrides])
        return simulate(run, Progress(Console(quiet=True)))

    def bytes_of(self, name: str) -> bytes:
        return (self.folder / name / "model.safetensors").read_bytes()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Runs tiny studies in a folder of their own."""
    return Runner(tmp_path)
