"""One simulated run begins although a page looks whether somebody is at it."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from common.locks import held, is_held
from simulation.run import LOCK, _begun, composed


def test_who_looks_at_a_run_keeps_nobody_from_beginning_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, looks = composed(tmp_path / "run", ["experiment=smoke"]), ExitStack()
    run.folder.mkdir()
    looks.enter_context(held(run.folder / LOCK, "looks"))
    monkeypatch.setattr("common.locks.time.sleep", lambda _: looks.close())
    with _begun(run):
        assert is_held(run.folder / LOCK)
