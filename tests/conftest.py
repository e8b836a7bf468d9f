"""What every test may ask for."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from simulation.environment import ENVIRONMENT

# Before anything imports NumPy or PyTorch, which read it then.
os.environ.update(ENVIRONMENT)
# A busy machine is slow, not wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

if TYPE_CHECKING:
    from tests.hospitals import Hospitals


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> "Hospitals":
    """The virtual hospitals of the tests' runs."""
    # Not above: it imports all that trains, and most tests need none.
    from tests.hospitals import Hospitals

    folder = tmp_path_factory.getbasetemp()
    # Each process of pytest-xdist has a folder of its own there.
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    return Hospitals((folder.parent if parallel else folder) / "hospitals")


@pytest.fixture
def shared_data() -> Path:
    """Folder of the real data sets; without it the test is skipped."""
    default = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("WARDROUND_DATA", default))
    if not (root / "manifest.csv").is_file():
        pytest.skip(f"no real data at {root}; set WARDROUND_DATA")
    return root
