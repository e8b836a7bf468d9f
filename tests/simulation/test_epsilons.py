"""What privacy costs, told beside the run without it."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from common.files import read_json
from simulation.epsilons import EPSILONS, FILE, PICTURE, compare_epsilons, table_of
from simulation.run import composed
from tests.hospitals import Hospitals


def row(epsilon: str, mean: float | None, spent: float | None) -> dict[str, Any]:
    return {
        "epsilon": epsilon,
        "status": "completed",
        "headline": "dice",
        "mean": mean,
        "worst": mean,
        "most_spent": spent,
        "least_noise_multiplier": spent,
    }


def test_the_cost_is_what_the_mean_loses_to_the_run_without_privacy() -> None:
    rows = [row("1", 0.5, 1.0), row("8", None, 8.0), row("none", 0.75, None)]
    table = table_of(rows, "title")
    costs = list(next(column for column in table.columns if column.header == "cost").cells)
    assert costs == ["0.250", "-", "0.000"]


def test_every_epsilon_is_run_and_none_is_passed(tmp_path: Path, hospitals: Hospitals) -> None:
    overrides = ["experiment=smoke", "simulation.engine=inprocess", "rounds=1"]
    hospitals.given(tmp_path / "run", *overrides)
    console = Console(file=io.StringIO(), width=120)
    assert compare_epsilons(composed(tmp_path / "run", overrides), console) == "completed"
    rows = read_json(tmp_path / "run" / FILE)["rows"]
    assert [entry["epsilon"] for entry in rows] == ["1", "3", "8", "none"]
    for entry, epsilon in zip(rows, EPSILONS, strict=True):
        assert (entry["most_spent"] or 0) <= (epsilon or 0)
    images = {path.resolve() for path in (tmp_path / "run").glob("*/data/north/images")}
    assert len(images) == 1
    noise = [entry["least_noise_multiplier"] for entry in rows[:3]]
    assert noise == sorted(noise, reverse=True)
    assert (tmp_path / "run" / PICTURE).read_bytes().startswith(b"\x89PNG")
