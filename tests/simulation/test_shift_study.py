import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.files import read_json
from common.schema import SettingsError
from simulation.outcomes import read_outcomes
from simulation.run import Simulation, composed, simulate
from simulation.shift_study import Cell, cells_of, run_shift_study
from simulation.table_config import TableConfig

TABLE: dict[str, Any] = {
    "seeds": [3, 4],
    "experiments": {"smoke": {"left_out": ["north", "south"]}, "retina": None},
    "rows": {
        "local": {"run": "fedavg", "model": "local"},
        "pooled": {"run": "fedavg", "model": "pooled"},
        "fedavg": {"settings": ["privacy=none", "evaluation=ditto"]},
        "ditto": {"run": "fedavg", "model": "personal"},
        "fedprox": {
            "settings": ["privacy=none", "strategy=fedprox"],
            "at": {"smoke": ["rounds=1"]},
            "left_out": False,
        },
    },
}


def study(folder: Path, table: dict[str, Any]) -> Simulation:
    run = composed(folder, ["experiment=shift_study", "simulation.actors=2"])
    return replace(run, settings=replace(run.settings, table=table))


def places(cells: list[Cell]) -> list[str]:
    return [str(cell.place) for cell in cells]


def test_each_site_is_left_out_once_over_the_seeds() -> None:
    cells = cells_of(TableConfig(**TABLE), ["data.held_out=0.3"])
    assert places(cells) == [
        "smoke/fedavg/seed-3",
        "smoke/fedavg/without-north",
        "smoke/fedprox/seed-3",
        "smoke/fedavg/seed-4",
        "smoke/fedavg/without-south",
        "smoke/fedprox/seed-4",
    ]
    whole, without, prox = cells[:3]
    assert whole.overrides == (
        *("experiment=smoke", "privacy=none", "evaluation=ditto", "data.held_out=0.3"),
        "seed=3",
    )
    assert without.overrides == (
        *(o for o in whole.overrides if not o.startswith("evaluation")),
        "strategy.tested=[north]",
    )
    assert prox.overrides[3] == "rounds=1"
    # Pooled is read of fedavg's runs, so these have baselines.
    assert (whole.baselines, prox.baselines) == (True, False)


def test_where_nobody_can_be_held_out_there_are_left_out_runs_alone() -> None:
    alone = {"left_out": ["a"], "left_out_by": "simulation.partition.leave_out", "whole": False}
    table = TableConfig(seeds=[0], experiments={"spinalcord": alone}, rows={"fedavg": {}})
    (cell,) = cells_of(table, [])
    assert cell.overrides[-1] == "simulation.partition.leave_out=a"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rows": {"ditto": {"run": "fedavg"}}}, "run=fedavg is no row"),
        ({"rows": {"ditto": {"model": "best"}}}, "rows.model='best'"),
        ({"experiments": {"smoke": {"left": []}}}, "takes settings, left_out"),
        ({"seeds": [-1]}, r"seeds\[0\]=-1"),
    ],
)
def test_a_table_that_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises((SettingsError, ValueError), match=told):
        TableConfig(**{**TABLE, **wrong}).data_sets()


@pytest.mark.parametrize("experiment", ["shift_study", "zoo", "private_models", "codecs"])
def test_the_command_line_may_name_a_file_of_known_outcomes(
    experiment: str, tmp_path: Path
) -> None:
    run = composed(tmp_path, [f"experiment={experiment}", "simulation.table.known=no.runs.jsonl"])
    with pytest.raises(SettingsError, match=r"known=no\.runs\.jsonl is no file"):
        run_shift_study(tmp_path, run, Console(quiet=True))


def test_no_other_command_takes_an_experiment_made_of_others(tmp_path: Path) -> None:
    from server.progress import Progress

    with pytest.raises(SettingsError, match="is made of other experiments"):
        simulate(composed(tmp_path, ["experiment=shift_study"]), Progress(Console(quiet=True)))


def test_a_setting_of_one_run_that_does_not_fit_stops_the_study_before_any(tmp_path: Path) -> None:
    rows = {**TABLE["rows"], "fedbn": {"settings": ["model.norm=batch"]}}
    with pytest.raises(SettingsError, match="batch_norm_policy"):
        run_shift_study(tmp_path, study(tmp_path, {**TABLE, "rows": rows}), Console(quiet=True))
    assert not list(tmp_path.iterdir())


def test_the_table_is_of_its_runs_and_they_are_not_run_again(tmp_path: Path) -> None:
    rows = {name: row for name, row in TABLE["rows"].items() if name != "fedprox"}
    few = [f"simulation.hospitals.{site}.patients=8" for site in ("north", "south")]
    smoke = {"settings": few, "left_out": ["north"]}
    small = {"experiments": {"smoke": smoke}, "rows": rows}
    run = study(tmp_path, {**TABLE, **small})
    assert run_shift_study(tmp_path, run, Console(quiet=True)) == "completed"
    told = (tmp_path / "shift_study.json").read_text()
    found = {row["row"]: row for row in json.loads(told)["rows"]}
    assert list(found) == list(rows)
    runs = [read_json(tmp_path / f"smoke/fedavg/seed-{seed}/result.json") for seed in (3, 4)]
    federated = [of["final"]["mean"]["dice"] for of in runs]
    assert found["fedavg"]["mean"] == pytest.approx(sum(federated) / 2)
    assert found["fedavg"]["spread"] == pytest.approx(abs(federated[0] - federated[1]) / 2)
    personal = [of["shift"]["summary"]["personal"]["worst"] for of in runs]
    assert found["ditto"]["worst"] == pytest.approx(sum(personal) / 2)
    left = read_json(tmp_path / "smoke/fedavg/without-north/result.json")
    assert (
        found["fedavg"]["left_out_sites"]["north"]
        == (left["final"]["sites"]["north"]["dice"]["value"])
    )
    assert (
        found["pooled"]["left_out_sites"]["north"]
        == (left["baselines"]["pooled"]["sites"]["north"]["dice"]["value"])
    )
    assert (found["fedavg"]["rounds"], found["pooled"]["rounds"]) == (2, None)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    run_shift_study(tmp_path, run, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == made
    assert (tmp_path / "shift_study.json").read_text() == told
    # Elsewhere what is known is taken as it is: nothing is trained, and the table is the same.
    kept, elsewhere = tmp_path / "shift_study.runs.jsonl", tmp_path / "elsewhere"
    before = read_outcomes(kept)
    known = study(elsewhere, {**TABLE, **small, "known": str(kept)})
    run_shift_study(elsewhere, known, Console(quiet=True))
    assert [path.name for path in elsewhere.rglob("*")] == ["shift_study.json"]
    assert (elsewhere / "shift_study.json").read_text() == told
    # A smaller table in the same folder forgets none of the larger one's.
    fewer = study(tmp_path, {**TABLE, **small, "seeds": [3]})
    run_shift_study(tmp_path, fewer, Console(quiet=True))
    assert read_outcomes(kept).keys() == before.keys()
