"""The hospitals of tests' runs, made once for all that see the same ones."""

import hashlib
from pathlib import Path

from rich.console import Console

from common.locks import waited_for
from server.progress import Progress
from simulation.run import composed, make_hospitals
from simulation.sites import DATA, share_hospitals


class Hospitals:
    """Virtual hospitals below a folder that all processes of the tests have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def given(self, folder: Path, *overrides: str) -> None:
        """Give a run's folder the hospitals that its settings ask for. No test may change them."""
        run = composed(folder, overrides)
        if run.settings.source != "virtual":
            return
        asked = repr((run.settings.virtual_hospitals(), run.study.seed))
        made = self._folder / hashlib.sha256(asked.encode()).hexdigest()[:16]
        made.mkdir(parents=True, exist_ok=True)
        with waited_for(made / "making"):
            if not (made / DATA).exists():
                make_hospitals(composed(made, overrides), Progress(Console(quiet=True)))
        share_hospitals(folder, made)
