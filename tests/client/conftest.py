"""What the tests of the trainer service share."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A short private folder: a Unix socket's path has 107 bytes."""
    made = Path(mkdtemp(prefix="ward"))
    yield made
    rmtree(made, ignore_errors=True)
