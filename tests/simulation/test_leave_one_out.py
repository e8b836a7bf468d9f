from pathlib import Path

from rich.console import Console

from common.files import read_json
from server.run import RESULT
from simulation.leave_one_out import FILE, leave_one_out
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
    stamp = (tmp_path / "all" / RESULT).stat().st_mtime_ns
    leave_one_out(run, console)
    assert (tmp_path / "all" / RESULT).stat().st_mtime_ns == stamp
