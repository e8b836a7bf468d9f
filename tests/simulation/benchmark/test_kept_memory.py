import os

import pytest

from simulation.benchmark import kept_memory
from simulation.benchmark.kept_memory import process_of, row_of

NAME = "WARDROUND_TEST_KEPT"


def test_a_process_has_its_environment_and_this_one_its_own() -> None:
    with process_of({NAME: "there"}, kept=False) as pool:
        assert pool.submit(os.getenv, NAME).result() == "there"
    assert NAME not in os.environ


def test_a_row_tells_the_pages_that_a_step_has_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_memory, "TURNS", 1)
    row = row_of("unet2d")
    assert all(float(row[way]) > 0 for way in ("libc", "daemon", "kept"))
    # Of several MB of activations.
    assert int(row["pages"]) > 1000 > 10 * int(row["pages_k"])
