"""The files of a long run are those that the page reads of a real one."""

from pathlib import Path

import pytest

from server.page.follow import Follower
from server.page.runs import Seen
from server.page.view import curves_of, overview_of
from simulation.benchmark.page import measure
from simulation.benchmark.page_run import EPSILON, NAMES, begin_run, end_run, tell_rounds

ALL = 2**62


def test_what_the_page_tells_of_the_run_is_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    run = Seen("long", Follower(folder))
    begin_run(folder, 4)
    tell_rounds(folder, 1, 3, 4)
    before = overview_of(run, ALL)
    assert (before["done"], before["rounds"], before["ended"]) == (3, 4, False)
    assert [site["site"] for site in before["sites"]] == list(NAMES)
    assert {site["rounds"] for site in before["sites"]} == {3}
    tell_rounds(folder, 4, 4, 4)
    end_run(folder, 4, 4)
    after = overview_of(run, ALL)
    assert (after["state"], after["done"], after["epsilon"]) == ("completed", 4, EPSILON)
    assert sorted(after["result"]["final"]) == list(NAMES)
    assert after["mean"] == pytest.approx(curves_of(run)["mean"][-1][1])


def test_without_a_browser_one_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (row,) = measure(quick=True)
    assert row["why_not"] == "Chromium is not installed here"
