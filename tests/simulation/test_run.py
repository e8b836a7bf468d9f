"""One simulated run begins although a page looks whether somebody is at it."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from common.locks import held, is_held
from common.schema import SettingsError
from simulation.run import CONFIG, LOCK, _begun, composed


def test_who_looks_at_a_run_keeps_nobody_from_beginning_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, looks = composed(tmp_path / "run", ["experiment=smoke"]), ExitStack()
    run.folder.mkdir()
    looks.enter_context(held(run.folder / LOCK, "looks"))
    monkeypatch.setattr("common.locks.time.sleep", lambda _: looks.close())
    with _begun(run):
        assert is_held(run.folder / LOCK)


def test_a_run_whose_files_of_settings_have_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    run = composed(tmp_path / "run", ["experiment=smoke"])
    run.folder.mkdir()
    for _ in range(2):
        with _begun(run):
            pass
    config = run.folder / CONFIG
    config.write_text(config.read_text().replace("patients: 26", "patients: 27"))
    with pytest.raises(SettingsError, match="files of settings"), _begun(run):
        pass


@pytest.mark.parametrize("given", ["model.members=2", f"begins_with='{'ab' * 32}'"])
def test_what_only_a_turn_can_begin_is_refused_before_a_hospital_is_made(
    tmp_path: Path, given: str
) -> None:
    with pytest.raises(ValueError, match="wardround-server turns"):
        composed(tmp_path / "run", ("experiment=smoke", given))
