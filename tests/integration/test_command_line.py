"""What a person meets: exit codes, messages, files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simulation.cli import main
from simulation.run import reopened
from tests.hospitals import Hospitals
from tests.integration.command import sim


def test_help_names_the_experiments_and_the_exit_codes() -> None:
    done = sim("--help")
    assert done.returncode == 0
    assert "virtual_mri" in done.stdout
    assert "Exit code" in done.stdout


def test_a_run_computes_in_one_thread_whatever_the_machine_has() -> None:
    """Two on two cores contend with the other hospitals, and may add up in another order."""
    told = (
        "import simulation.cli, numpy, threadpoolctl, torch; "
        "print([each['num_threads'] for each in threadpoolctl.threadpool_info()], "
        "torch.get_num_threads())"
    )
    free = {
        k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    done = subprocess.run([sys.executable, "-c", told], env=free, capture_output=True, text=True)
    threads, of_torch = done.stdout.strip().rsplit(" ", 1)
    assert set(json.loads(threads)) == {1}
    assert of_torch == "1"


def test_help_is_told_before_what_trains_is_read() -> None:
    told = "import sys, simulation.cli; print({'torch', 'monai', 'flwr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_cfg_prints_the_composed_settings() -> None:
    done = sim("experiment=smoke", "--cfg", "job")
    assert done.returncode == 0
    assert "name: smoke" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["experiment=smoke", "training.lr=-1"], "training.lr=-1.0"),
        (["experiment=smoke", "model.norm=batch"], "model.batch_norm_policy"),
        (["experiment=unknown"], "unknown"),
        (["experiment=pneumonia", "data.root=/nowhere"], "data.root=/nowhere"),
        (["resume", "/nowhere"], "holds no run"),
        (["resume"], "takes one folder"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    tmp_path: Path,
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = [] if arguments[0] == "resume" else [f"run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", ["wardround-sim", *arguments, *place])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_sweep_runs_every_setting_in_a_folder_of_its_own(tmp_path: Path) -> None:
    done = sim(
        "--multirun",
        "experiment=smoke",
        "simulation.engine=inprocess",
        "rounds=1",
        "privacy=none",
        *(f"simulation.hospitals.{site}.patients=8" for site in ("north", "south")),
        "seed=0,1",
        f"run.dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / d / "result.json").read_text()) for d in "01"]
    assert [result["study"]["seed"] for result in results] == [0, 1]


def test_a_run_that_loses_a_site_exits_with_3_and_says_why(runner: Any) -> None:
    first = runner("broken", "rounds=1", own=True)
    assert first["status"] == "completed"
    folder = runner.folder / "broken"
    image = next((folder / "data" / "south" / "images").iterdir())
    image.write_bytes(b"not an image")
    for name in ("result.json", "checkpoint.safetensors"):
        (folder / name).unlink()
    done = sim("resume", str(folder))
    assert done.returncode == 3
    assert "partial" in done.stdout
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "partial"
    assert "files of this site cannot be used" in result["reason"]
    assert image.name not in json.dumps(result), "a file's name left the site"
    assert image.name in (folder / "sites" / "001-south" / "site.log").read_text()


def test_a_run_writes_what_it_promises(tmp_path: Path, hospitals: Hospitals) -> None:
    folder = tmp_path / "run"
    settings = ("experiment=smoke", "simulation.engine=inprocess", f"run.dir={folder}")
    hospitals.given(folder, *settings)
    done = sim("baselines", *settings)
    assert done.returncode == 0, done.stderr
    for text in ("north", "south", "mean", "worst site", "epsilon", "pooled", "report.html"):
        assert text in done.stdout
    for name in ("config.yaml", "result.json", "model.safetensors", "best.safetensors"):
        assert (folder / name).is_file()
    result = json.loads((folder / "result.json").read_text())
    assert set(result["baselines"]) == {"pooled", "local", "ensemble"}
    for site in ("north", "south"):
        assert set(result["final"]["sites"][site]["dice"]) == {"value", "low", "high", "n"}
        assert set(result["privacy"][site]) >= {
            "unit",
            "epsilon",
            "delta",
            "noise_multiplier",
            "steps",
        }
        assert result["privacy"][site]["epsilon"] <= 8.0
    again = sim("resume", str(folder))
    assert again.returncode == 0
    assert json.loads((folder / "result.json").read_text()) == result


def test_an_audit_tells_what_it_found_and_exits_with_0_where_the_claim_stands(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "audit"
    done = sim("audit", "experiment=smoke", "audit.canaries=40", f"run.dir={folder}")
    assert done.returncode == 0, done.stderr
    for text in ("claimed epsilon", "lower bound at 95 %", "AUC", "north", "the claim stands"):
        assert text in done.stdout
    found = json.loads((folder / "audit.json").read_text())
    assert found["verdict"] == "the claim stands"
    assert found["canaries"] == len(found["scores"]) == 40
    assert found["bound"]["epsilon"] < found["claimed_epsilon"]
    assert found["study_epsilon"] <= 8.0
    assert (folder / "audit.png").is_file()
    wrong = sim("audit", "experiment=smoke", "audit.canaries=0", f"run.dir={tmp_path / 'b'}")
    assert wrong.returncode == 2
    assert "audit.canaries=0" in wrong.stderr


def test_ctrl_c_stops_at_once_and_the_run_goes_on(runner: Any, hospitals: Hospitals) -> None:
    folder = runner.folder / "stopped"
    options = ["experiment=smoke", "simulation.engine=inprocess", "rounds=50", f"run.dir={folder}"]
    hospitals.given(folder, *options)
    command = [sys.executable, "-m", "simulation.cli", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = folder / "events.jsonl"
    deadline = time.monotonic() + 120
    while '"round done"' not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"resume {folder}" in errors.replace("\n", "")
    assert "Traceback" not in errors
    assert reopened(folder).overrides == options[:3]
