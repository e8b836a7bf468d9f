import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from common.config import CONFIG_FOLDER
from common.files import read_json
from common.schema import SettingsError
from simulation.beyond import MEASURES, Measure, row_key, run_beyond
from simulation.beyond_config import KINDS, BeyondConfig, MeasuredRow
from simulation.run import RUN, composed
from tests.integration.test_every_task import SMALL_CNN, listed

ROWS = (
    "restoration",
    "hippocampus",
    "dicom_ct",
    "dicom_kspace",
    "dicom_fine",
    "survival",
    "pretraining",
    "contrastive",
    "pretraining_private",
    "slices",
    "slices_private",
    "small",
    "unsure",
)
FEW = (
    "simulation.partition.by=column",
    "+simulation.partition.columns=[site]",
    'simulation.partition.patient_pattern=""',
    "simulation.partition.held_out=own",
    "+simulation.partition.min_patients_per_site=1",
    "data.size=[16,16]",
    "data.held_out=0.5",
    "data.augment=none",
    "rounds=1",
    *SMALL_CNN,
)
RESTORING = ("model=unet128", "model.channels=[4,6]", "model.norm_groups=2", "model.residual=true")
LABELS = {
    "label": lambda _, k: ("normal", "pneumonia")[k % 2],
    "dataset": lambda *_: "cxr_pneumonia",
    "sha256": lambda site, k: f"of {site} {k}",
}
FOLLOWED = (*FEW, "task=survival", "task.truth_column=risk")


def test_every_kind_of_row_is_measured_and_the_experiment_composes(tmp_path: Path) -> None:
    assert set(MEASURES) == set(KINDS)
    run = composed(tmp_path, ["experiment=beyond"])
    rows = run.settings.beyond_config().measured_rows()
    assert tuple(rows) == ROWS
    assert {row.kind for row in rows.values() if row is not None} == set(KINDS)


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"kind": "weather", "experiment": "smoke"}, "kind='weather'"),
        ({"kind": "survival", "experiment": "smoke", "labels": 0.1}, "are of kind=pretraining"),
        ({"kind": "pretraining", "experiment": "smoke"}, "are of kind=pretraining"),
        ({"kind": "survival", "experiment": "smoke", "rest": ["seed=1"]}, "rest="),
        ({"kind": "survival", "experiment": "smoke", "private": True}, "private=True"),
        ({"kind": "survival", "experiment": "smoke", "student": ["model=cnn"]}, "kind=compress"),
        ({"kind": "survival", "experiment": "smoke", "federated": ["a=1"]}, "kind=restoration"),
        ({"kind": "compress", "experiment": "smoke", "first": ["a=1"]}, "are of kind=pretraining"),
        ({"kind": "survival"}, "experiment"),
    ],
)
def test_a_row_that_cannot_be_run_is_named(about: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        BeyondConfig(rows={"one": about}).measured_rows()


def test_a_measure_is_reached_from_its_least_on() -> None:
    measure = Measure(row="r", key="k", name="n", value=-0.3, least=-0.3, more="")
    assert measure.reached
    assert not Measure(**{**asdict(measure), "value": -0.31}).reached


@pytest.mark.parametrize("changed", ["smoke", "virtual_lesions"])
def test_a_row_is_new_when_a_file_of_its_studies_changes(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = MeasuredRow(kind="survival", experiment="smoke", first=["experiment=virtual_lesions"])
    before = row_key(row, tmp_path, [])
    configs = tmp_path / "configs"
    shutil.copytree(CONFIG_FOLDER, configs)
    monkeypatch.setattr("common.config.CONFIG_FOLDER", configs)
    assert row_key(row, tmp_path, ["simulation.actors=3"]) == before
    file = configs / "experiment" / f"{changed}.yaml"
    file.write_text(re.sub(r"(?m)^rounds: \d+", "rounds: 99", file.read_text()))
    assert row_key(row, tmp_path, []) != before


def test_what_was_measured_is_not_run_again_and_rows_left_out_are_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    columns = {
        **LABELS,
        "time": lambda _, k: 5 - 0.7 * k,
        "event": lambda *_: 1,
        "risk": lambda _, k: 0.5 * k,
    }
    data = listed(tmp_path / "data", columns)
    others = [f"simulation.beyond.rows.{row}=null" for row in ROWS if row != "survival"]
    settings = ",".join(f"'{setting}'" for setting in FOLLOWED)
    # It begins with the model of the same study.
    first = f"'experiment=pneumonia',{settings}"
    row = f"{{kind: survival, experiment: pneumonia, settings: [{settings}], first: [{first}]}}"
    overrides = [
        "experiment=beyond",
        f"data.root={data}",
        *others,
        f"simulation.beyond.rows.survival={row}",
    ]

    def printed() -> str:
        with (tmp_path / "out").open("w") as nowhere:
            console = Console(record=True, width=200, file=nowhere)
            run_beyond(tmp_path / "table", composed(tmp_path / "table", overrides), console)
        return console.export_text()

    first, second = printed(), printed()
    assert "begun.safetensors" in (tmp_path / "table" / "survival" / "begun" / RUN).read_text()
    assert "survival: survival of pneumonia" in first
    assert "survival: survival of pneumonia" not in second
    assert second.count("not run") == len(others)
    (told,) = (line for line in second.splitlines() if "of the truth 1.000" in line)
    assert told in first


def test_a_start_and_the_unlabelled_rest_are_held_against_few_labels(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    row = MeasuredRow(
        kind="pretraining",
        experiment="pneumonia",
        settings=[*FEW, "training.local_steps=2", "training.batch_size=2"],
        first=["experiment=pneumonia_pretraining", *FEW],
        labels=0.34,
        rest=["method=fixmatch"],
    )
    common = [f"data.root={listed(tmp_path / 'data', LABELS)}", "simulation.engine=inprocess"]
    start, rest = MEASURES["pretraining"](row, tmp_path / "row", common)
    assert (start[0], rest[0]) == (
        "start, above twice the labels",
        "unlabelled rest, above without it",
    )
    patients = {
        name: read_json(tmp_path / "row" / name / "result.json")["sites"]["north"]["patients_train"]
        for name in ("few", "twice", "rest")
    }
    # The others train as well, though nobody has labelled them.
    assert patients == {"few": 1, "twice": 2, "rest": 3}


def test_pooled_data_are_trained_by_the_row_and_the_federation_by_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    row = MeasuredRow(
        kind="restoration",
        experiment="pneumonia",
        settings=[*FEW[: -len(SMALL_CNN)], "task=restoration", "data.normalise=minmax", *RESTORING],
        federated=["rounds=2"],
    )
    common = [f"data.root={listed(tmp_path / 'data', LABELS)}", "simulation.engine=inprocess"]
    _, above = MEASURES["restoration"](row, tmp_path / "row", common)
    pooled, federated = (
        read_json(tmp_path / "row" / name / "result.json") for name in ("pooled", "federated")
    )
    assert [len(of["rounds"]) for of in (pooled, federated)] == [1, 2]
    assert "baselines" not in federated
    reached = federated["final"]["mean"]["psnr"] - pooled["baselines"]["pooled"]["mean"]["psnr"]
    assert above == ("dB above pooled", reached, -0.3, above[3])
    assert f"by the same settings {pooled['final']['mean']['psnr']:.2f} dB" in above[3]
