from pathlib import Path

import pytest
from rich.console import Console

from common.files import read_json
from server.run import RESULT
from server.showing import REPORT
from simulation.leave_one_out import FILE, gain_at, leave_one_out
from simulation.run import composed

FEW = [f"simulation.hospitals.{site}.patients=8" for site in ("north", "south")]
SMOKE = ["experiment=smoke", "simulation.engine=inprocess", "privacy=none", "rounds=1", *FEW]


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
    whole = read_json(tmp_path / "all" / RESULT)
    told = whole["shift"]["left_out"]
    assert told["rows"] == found["rows"]
    for row in told["rows"]:
        assert row["low"] <= told["gaps"][row["site"]] <= row["high"]
        assert row["n"] == whole["final"]["sites"][row["site"]]["dice"]["n"]
    without = composed(tmp_path / "without-north", [*SMOKE, "strategy.tested=[north]"])
    gain = gain_at(composed(tmp_path / "all", SMOKE), without, "north")
    assert gain is not None
    assert gain.value == pytest.approx(told["gaps"]["north"], abs=1e-6)
    # The study did not compare the models, and its page says nothing of that.
    page = (tmp_path / "all" / REPORT).read_text()
    assert "What would a hospital get that did not join?" in page
    assert "Does joining help?" not in page
    stamp = (tmp_path / "all" / RESULT).stat().st_mtime_ns
    leave_one_out(run, console)
    assert (tmp_path / "all" / RESULT).stat().st_mtime_ns == stamp


def test_a_gap_has_no_interval_where_a_part_of_the_model_stayed_at_the_sites(
    tmp_path: Path,
) -> None:
    run = composed(tmp_path, [*SMOKE, "method=local_norms"])
    assert gain_at(run, run, "north") is None
