import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.files import write_json
from common.locks import HeldError
from server import studies
from server.events import event_log
from server.studies import (
    Attempt,
    StudyRun,
    ask,
    ask_to_stop,
    go_on,
    run_named,
    runs_in,
    stop_asked,
)


def asked(home: Path, study: str = "smoke") -> StudyRun:
    return ask(home, study, "ab" * 32, ["rounds=2"], ["st-b", "st-a"], 60.0)


def ended(run: StudyRun, status: str) -> None:
    write_json(run.folder / studies.RESULT, {"status": status, "reason": None})


def test_what_was_asked_comes_back_and_the_sites_in_order(tmp_path: Path) -> None:
    run = asked(tmp_path)
    assert runs_in(tmp_path) == [run]
    assert (run.asked.overrides, run.asked.sites) == (["rounds=2"], ["st-a", "st-b"])
    assert run.status() == ("running", "")
    assert run.attempt is None


def test_two_studies_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert len({asked(tmp_path).folder for _ in range(3)}) == 3


def test_a_study_is_named_by_the_beginning_of_its_folders_name(tmp_path: Path) -> None:
    run = asked(tmp_path)
    assert run_named(tmp_path, run.folder.name[:10]) == run
    second = asked(tmp_path)
    assert run_named(tmp_path, run.folder.name) == run
    with pytest.raises(ValueError, match=f"names 2 studies.*{second.folder.name}"):
        run_named(tmp_path, run.folder.name[:10])
    with pytest.raises(ValueError, match="names 0 studies"):
        run_named(tmp_path, "other")


@pytest.mark.parametrize("status", ["completed", "partial", "failed", "stopped"])
def test_a_result_says_how_a_study_ended(status: str, tmp_path: Path) -> None:
    run = asked(tmp_path)
    ended(run, status)
    assert run.status() == (status, "")
    with pytest.raises(ValueError, match=f"has ended: {status}"):
        ask_to_stop(run)


def test_a_study_that_was_given_up_has_failed(tmp_path: Path) -> None:
    run = asked(tmp_path)
    run.keep_attempt(Attempt(flower_run=2**63 + 1, begun_at=1.0))
    assert run.attempt == Attempt(flower_run=2**63 + 1, begun_at=1.0)
    assert run.status()[0] == "running"
    run.keep_attempt(replace(run.attempt, gave_up="it died"))  # type: ignore[type-var]
    assert run.status() == ("failed", "it died")


def test_a_stopped_study_goes_on_without_its_result_and_its_attempts(tmp_path: Path) -> None:
    run = asked(tmp_path)
    run.keep_attempt(Attempt(flower_run=1, begun_at=1.0))
    ask_to_stop(run)
    assert stop_asked(run.folder)
    assert run.status()[0] == "stopping"
    ended(run, "stopped")
    go_on(run)
    assert run.status() == ("running", "")
    assert (run.attempt, run.result(), stop_asked(run.folder)) == (None, None, False)


@pytest.mark.parametrize("status", ["completed", "partial", None])
def test_what_is_done_or_runs_is_not_gone_on_with(status: str | None, tmp_path: Path) -> None:
    run = asked(tmp_path)
    if status is not None:
        ended(run, status)
    with pytest.raises(ValueError, match="nothing to go on with"):
        go_on(run)


def test_one_process_works_on_a_study(tmp_path: Path) -> None:
    run = asked(tmp_path)
    assert not run.worked_on()
    began = time.monotonic()
    with run.working():
        assert run.worked_on()
        with pytest.raises(HeldError, match="works on this study"), run.working(0.2):
            pass
    assert time.monotonic() - began > 0.2
    assert not run.worked_on()


def test_full_rounds_are_counted_by_the_events(tmp_path: Path) -> None:
    run = asked(tmp_path)
    assert run.rounds_done() == 0
    tell = event_log(run.folder)
    tell("round", round=1)
    assert run.rounds_done() == 0
    tell("round done", round=1)
    assert run.rounds_done() == 1


def test_a_study_with_numbers_of_64_bits_is_json(tmp_path: Path) -> None:
    run = asked(tmp_path)
    run.keep_attempt(Attempt(flower_run=2**64 - 1, begun_at=1.0))
    told: dict[str, Any] = json.loads((run.folder / studies.FLOWER).read_text())
    assert told["flower_run"] == 2**64 - 1
