"""Real processes for the tests of this folder: hospitals made once, a federation a module."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.locks import held
from simulation.chaos.federation import Federation
from simulation.chaos.hospitals import Undisturbed, make_hospitals, undisturbed

TWO = ("north", "south")

Expect = Callable[[list[str]], Undisturbed]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hospitals, made once for all the workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    with held(shared / "hospitals.lock", "makes the hospitals", 300.0):
        return make_hospitals(shared / "hospitals")


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's path has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="wr-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def federation(made: Path, short_folder: Path) -> Iterator[Federation]:
    """A federation of two sites; nothing of it runs yet."""
    with Federation(short_folder / "f", made, TWO) as built:
        yield built


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Expect:
    """Returns what a study comes to in one process."""

    def run(overrides: list[str]) -> Undisturbed:
        return undisturbed(made, tmp_path_factory.mktemp("undisturbed") / "run", overrides, TWO)

    return run
