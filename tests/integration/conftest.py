"""A study small enough to run whole, many times."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.progress import Progress
from simulation.run import composed, simulate
from tests.hospitals import Hospitals

TINY = ["experiment=smoke", "simulation.engine=inprocess"]


class Runner:
    """Runs studies below a folder."""

    def __init__(self, folder: Path, hospitals: Hospitals) -> None:
        self.folder = folder
        self._hospitals = hospitals

    def __call__(self, name: str, *overrides: str, own: bool = False) -> dict[str, Any]:
        """Run a study. own: its hospitals are made for it alone, so that it may change them."""
        asked = [*TINY, *overrides]
        if not own:
            self._hospitals.given(self.folder / name, *asked)
        run = composed(self.folder / name, asked)
        return simulate(run, Progress(Console(quiet=True)))

    def bytes_of(self, name: str) -> bytes:
        return (self.folder / name / "model.safetensors").read_bytes()


@pytest.fixture
def runner(tmp_path: Path, hospitals: Hospitals) -> Runner:
    """Runs tiny studies in a folder of their own."""
    return Runner(tmp_path, hospitals)
