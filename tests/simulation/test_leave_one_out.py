from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.files import read_json
from server.run import RESULT
from simulation.leave_one_out import FILE, gap_of, leave_one_out, summary_of
from simulation.run import composed

SMOKE = ["experiment=smoke", "simulation.engine=inprocess", "privacy=none", "rounds=1"]


def row(site: str, inside: float | None, outside: float | None) -> dict[str, Any]:
    return {"site": site, "inside": inside, "outside": outside, "others": None}


def test_a_gap_is_turned_so_that_more_is_better_inside() -> None:
    assert gap_of(row("a", 0.8, 0.6), True) == pytest.approx(0.2)
    assert gap_of(row("a", 8.0, 6.0), False) == pytest.approx(-2.0)
    assert gap_of(row("a", None, 0.6), True) is None


def test_the_summary_is_over_the_sites_that_have_both() -> None:
    rows = [row("a", 0.8, 0.6), row("b", 0.7, 0.2), row("c", None, 0.1)]
    about = summary_of(rows, True)
    assert about["mean_gap"] == pytest.approx(0.35)
    assert about["largest_gap_at"] == "b"
    assert about["gaps"]["c"] is None
    assert summary_of([], True)["mean_gap"] is None


def test_each_site_is_left_out_in_turn_on_the_same_images_and_done_work_is_kept(
    tmp_path: Path,
) -> None:
    run, console = composed(tmp_path, SMOKE), Console(quiet=True)
    assert leave_one_out(run, console) == "completed"
    found = read_json(tmp_path / FILE)
    assert [r["site"] for r in found["rows"]] == ["north", "south"]
    for site in ("north", "south"):
        part = read_json(tmp_path / f"without-{site}" / RESULT)
        assert all(site not in record["participants"] for record in part["rounds"])
        assert part["final"]["sites"][site]["dice"]["n"] > 0
        assert (tmp_path / f"without-{site}" / "data").resolve() == tmp_path / "all" / "data"
    stamp = (tmp_path / "all" / RESULT).stat().st_mtime_ns
    leave_one_out(run, console)
    assert (tmp_path / "all" / RESULT).stat().st_mtime_ns == stamp
