import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from simulation.benchmark.table import (
    BUSY_CORES,
    Row,
    cpu_model,
    machine,
    others_cores,
    run_benchmark,
    table_of,
)
from simulation.environment import ENVIRONMENT

ROWS: list[Row] = [{"name": "one", "sites": 4, "ms": 1.5}, {"name": "two", "sites": 16, "ms": 2.0}]


def measure(quick: bool) -> list[Row]:
    sys.stdout.write("a library says hello\n")
    return ROWS[:1] if quick else ROWS


def test_json_is_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    run_benchmark("hello", "about", measure, ["--json"])
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    others = told["machine"].pop("others_cores")
    assert told == {"benchmark": "hello", "machine": machine(), "rows": ROWS}
    assert 0.0 <= others < (os.cpu_count() or 1) + 1
    assert "hello" in captured.err


def test_quick_reaches_the_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    run_benchmark("hello", "about", measure, ["--json", "--quick"])
    assert json.loads(capsys.readouterr().out)["rows"] == ROWS[:1]


def test_table_names_every_row_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    run_benchmark("hello", "about", measure, [])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("one", "two", "1.500", "16", "torch"))


def test_not_a_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        run_benchmark("hello", "about", lambda _: [{"name": "x", "ms": float("nan")}], ["--json"])
    assert capsys.readouterr().out == ""


def test_numbers_stand_to_the_right() -> None:
    table = table_of("about", ROWS)
    assert [column.justify for column in table.columns] == ["left", "right", "right"]
    with Console(width=60, quiet=True) as console:
        console.print(table)
    assert table.row_count == len(ROWS)


def test_why_a_row_was_not_measured_stands_under_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows: list[Row] = [
        {"name": "one", "ms": 1.5, "why_not": ""},
        {"name": "two", "ms": "-", "why_not": f"takes {'very ' * 8}long"},
    ]
    run_benchmark("hello", "about", lambda _: rows, [])
    table, below = capsys.readouterr().out.split("└")
    assert "why_not" not in table
    assert f"two: takes {'very ' * 8}long" in below
    assert "one:" not in below


def test_machine_tells_the_versions_that_are_installed() -> None:
    import torch

    about = machine()
    assert set(about) == {"date", "cpu", "cores", "gpu", "python", "torch", "flwr"}
    assert (about["gpu"] == "none") == (not torch.cuda.is_available())
    assert about["torch"] == torch.__version__
    assert about["cores"] == len(os.sched_getaffinity(0))


SPIN = "import time\nends = time.process_time() + 60\nwhile time.process_time() < ends: pass"


def test_work_of_others_is_seen_before_a_row_is_measured() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as other:
        try:
            busy = others_cores(listen_s=1.0)
        finally:
            other.kill()
    assert busy is not None
    assert busy > BUSY_CORES


def test_a_machine_that_does_not_tell_is_not_called_quiet(tmp_path: Path) -> None:
    assert others_cores(tmp_path / "absent") is None


def test_cores_that_are_idle_or_wait_for_a_disk_are_not_at_work(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 100 0 100 9000 500 0 0 0 0 0\ncpu0 1 2 3\n")

    def later() -> None:
        stat.write_text("cpu 100 0 100 9999 999 0 0 0 0 0\ncpu0 1 2 3\n")

    timer = threading.Timer(0.05, later)
    timer.start()
    assert others_cores(stat, listen_s=0.2) == 0.0
    timer.join()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n", "AMD EPYC"),
        ("model name : a: b\n", "a: b"),
    ],
)
def test_cpu_model_is_the_first_name(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_model(tmp_path / "cpuinfo") == expected


def test_cpu_without_a_name_is_its_architecture(tmp_path: Path) -> None:
    assert cpu_model(tmp_path / "absent") == os.uname().machine


def test_flower_reads_its_telemetry_switch_as_off() -> None:
    program = (
        "from simulation.benchmark.table import begin_with_environment\n"
        "begin_with_environment()\n"
        "import flwr.supercore.telemetry as telemetry\n"
        "import sys\n"
        "sys.stdout.write(telemetry.FLWR_TELEMETRY_ENABLED + ' ' + ' '.join(sys.argv[1:]))\n"
    )
    environment = {name: text for name, text in os.environ.items() if name not in ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", program, "--json", "a b"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0 --json a b"
