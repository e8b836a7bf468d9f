import sys
import time
from pathlib import Path

from simulation.benchmark import engine
from simulation.benchmark.engine import PEERS, known_late, row_of, why_not

FOUND = {
    "clients": 10,
    "round_ms": [5000.0, 30.0, 10.0, 20.0],
    "start_s": 6.5,
    "peak_rss_mb": 300.0,
    "children_rss_mb": 0.0,
}


def test_the_first_round_is_dropped_and_the_rest_is_told_a_client() -> None:
    row = row_of("flower@10x1MB", FOUND, 0.5)
    assert (row["ms"], row["lowest"], row["highest"]) == (2.0, 1.0, 3.0)
    assert row["to_ours"] == 4.0
    assert row_of("ours@10x1MB", FOUND, 2.0)["to_ours"] == 1.0
    assert row_of("flower@10x1MB", FOUND, None)["to_ours"] == "-"


def test_a_row_without_a_result_says_why_in_the_same_columns() -> None:
    row = row_of("pfl@10x1MB", "could not be installed", 0.5)
    assert row.keys() == row_of("pfl@10x1MB", FOUND, 0.5).keys()
    assert row["why_not"] == "could not be installed"


def test_what_does_not_fit_is_not_tried() -> None:
    assert "100 clients at most" in why_not("nvflare", 1000, 0.4)
    assert "would need 3000000 GB" in why_not("flower", 10**9, 1.0)
    assert why_not("pfl", 1000, 30.0) == ""


def test_what_is_larger_than_a_row_that_took_too_long_is_not_tried() -> None:
    assert known_late(None, 100) == known_late((100, "0.4"), 10) == ""
    assert known_late((100, "0.4"), 100) == "not tried: 100x0.4MB took too long"
    assert known_late((100, "0.4"), 1000) == "not tried: 100x0.4MB took too long"


def test_each_peer_has_a_script_and_a_list_that_tells_how_it_is_installed() -> None:
    folder = Path(engine.__file__).parent / "peers"
    for peer in PEERS:
        assert (folder / f"run_{peer}.py").is_file()
        first = (folder / f"requirements-{peer}.txt").read_text().splitlines()[0]
        assert f"requirements-{peer}.txt" in first.split("pip install ")[1]


def running(pid: int) -> bool:
    """False where a process is gone or only waits for its parent to read its exit code."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_run_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    parent = (
        "import pathlib, subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(p.pid))\n"
        "time.sleep(60)\n"
    )
    told = engine.ran([sys.executable, "-c", parent], 10, 3, limit_s=2.0)
    assert told == "not done with 3 rounds after 2 s"
    pid = int((tmp_path / "pid").read_text())
    ends = time.monotonic() + 30.0
    while running(pid):
        assert time.monotonic() < ends, f"process {pid} is still running 30 s after its end"
        time.sleep(0.05)


def test_a_run_that_fails_is_told() -> None:
    assert engine.ran([sys.executable, "-c", "raise SystemExit(3)"], 10, 3, 60.0) == (
        "failed with exit code 3"
    )
