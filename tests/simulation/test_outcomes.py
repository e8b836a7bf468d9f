import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.schema import SettingsError
from simulation import config
from simulation.outcomes import (
    Outcome,
    key_of,
    megabytes_of,
    outcome_of,
    read_outcomes,
    told_makers,
    write_outcomes,
)
from simulation.run import composed

TABLES = Path(__file__).parents[2] / "docs" / "tables"
PART = {"bytes_sent": 1_000_000, "bytes_received": 2_000_000, "before": {}}
AT_HALF = {**PART, "before": {"dice": {"value": 0.25}}}
RESULT: dict[str, Any] = {
    "headline": "dice",
    "status": "completed",
    "reason": None,
    "metrics": {"dice": {"higher_is_better": True}},
    "final": {"sites": {"a": {"dice": {"value": None}}, "b": {"dice": {"value": 0.5}}}},
    "baselines": {"pooled": {"sites": {"a": {"dice": {"value": 0.7}}, "b": {}}}},
    "shift": {"matrix": {"personal": {"b": {"value": 0.6}}, "local/a": {"b": {"value": 0.1}}}},
    "study": {"strategy": {"fairness_q": None}},
    "rounds": [
        {"round": 1, "sites": {"a": PART, "b": PART}},
        {"round": 2, "sites": {"a": {**PART, "before": {"dice": {"value": 0.75}}}, "b": AT_HALF}},
        {"round": 3, "sites": {"a": PART, "b": PART}},
    ],
    "seconds": 7.0,
    "software": {"wardround": "1", "torch": "2"},
}


def made(**changed: Any) -> Outcome:
    return replace(outcome_of(RESULT, "smoke/fedavg/seed-0", "00ff"), **changed)


def test_an_outcome_has_the_models_of_a_row_where_they_have_a_value() -> None:
    assert made().values == {"federated": {"b": 0.5}, "pooled": {"a": 0.7}, "personal": {"b": 0.6}}
    assert megabytes_of(RESULT) == made().megabytes == 18.0
    assert made().made_with.startswith("wardround 1, torch 2, ")


def test_the_curve_has_what_was_sent_until_each_evaluation_and_the_mean_of_the_sites() -> None:
    final = {"sites": {"a": {"dice": {"value": 0.5}}, "b": {"dice": {"value": 0.7}}}}
    assert outcome_of({**RESULT, "final": final}, "", "").curve == [
        (1, 2.0, 0.5),
        (3, 6.0, pytest.approx(0.6)),
    ]


def test_a_curve_has_no_point_of_other_sites_than_its_last() -> None:
    assert made().curve == [(3, 6.0, 0.5)]


@pytest.mark.parametrize("setting", ["fairness_q", "generalisation_step"])
def test_an_outcome_says_that_tested_patients_set_its_weights(setting: str) -> None:
    tuned = {**RESULT, "study": {"strategy": {setting: 2.0}}}
    assert outcome_of(tuned, "", "").weighted_by_held_out
    assert not made().weighted_by_held_out


def test_a_run_that_failed_says_why() -> None:
    failed = {**RESULT, "status": "failed", "reason": "north: no bfloat16"}
    assert outcome_of(failed, "", "").reason == "north: no bfloat16"


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    outcomes = [made(key="2"), made(key="1"), made(place="a/b/seed-1", key="3")]
    write_outcomes(tmp_path / "runs.jsonl", outcomes)
    assert list(read_outcomes(tmp_path / "runs.jsonl")) == ["3", "1", "2"]
    assert list(read_outcomes(tmp_path / "runs.jsonl").values()) == [outcomes[n] for n in (2, 1, 0)]


def test_a_file_that_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"known=.*none\.jsonl is no file"):
        read_outcomes(tmp_path / "none.jsonl")
    file = tmp_path / "runs.jsonl"
    write_outcomes(file, [made()])
    file.write_text(file.read_text() + '{"key": 1}\n')
    with pytest.raises(SettingsError, match="line 2 is no outcome of a run"):
        read_outcomes(file)


def test_a_key_is_of_what_decides_a_run_and_not_of_how_it_is_run(tmp_path: Path) -> None:
    def key(*overrides: str, baselines: bool = False) -> str:
        return key_of(composed(tmp_path, ["experiment=smoke", *overrides]), baselines)

    assert key() == key("simulation.actors=7", "simulation.engine=inprocess")
    others = [
        key(baselines=True),
        key("seed=1"),
        key("rounds=3"),
        key("simulation.hospitals.north.patients=27"),
        key("simulation.hospitals.north.scanner=flair_1p5t"),
    ]
    assert len({key(), *others}) == 1 + len(others)


def test_a_key_is_of_what_a_scanner_is_and_not_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = composed(tmp_path, ["experiment=smoke"])
    before = key_of(run, baselines=False)
    scanners = tmp_path / "scanners"
    shutil.copytree(config.SCANNERS, scanners)
    monkeypatch.setattr(config, "SCANNERS", scanners)
    assert key_of(run, baselines=False) == before
    file = scanners / "flair_3t.yaml"
    file.write_text(re.sub(r"noise_std: \S+", "noise_std: 0.5", file.read_text()))
    assert key_of(run, baselines=False) != before


def test_a_key_is_of_the_images_that_the_data_set_lists(tmp_path: Path) -> None:
    keys = []
    for listed in ("one", "another"):
        (tmp_path / "mine.csv").write_text(f"path,sha256\na.png,{listed}\n")
        overrides = ["experiment=retina", f"data.root={tmp_path}"]
        overrides.append("+simulation.partition.manifest=mine.csv")
        keys.append(key_of(composed(tmp_path / "run", overrides), baselines=False))
    assert keys[0] != keys[1]


@pytest.mark.parametrize("content", [None, "path,label\na.png,x\n"])
def test_images_without_checksums_have_no_key(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "manifest.csv").write_text(content)
    run = composed(tmp_path / "run", ["experiment=retina", f"data.root={tmp_path}"])
    with pytest.raises(SettingsError, match="has no column sha256"):
        key_of(run, baselines=False)


def test_who_made_outcomes_is_counted() -> None:
    outcomes = [made(made_with=maker) for maker in ("torch 1", "torch 2", "torch 1")]
    assert told_makers(outcomes) == "2 by torch 1; 1 by torch 2"


@pytest.mark.parametrize("file", sorted(TABLES.glob("*.runs.jsonl")), ids=lambda file: file.name)
def test_the_outcomes_of_the_docs_can_be_gone_on_from(file: Path) -> None:
    outcomes = read_outcomes(file)
    assert outcomes
    assert {outcome.status for outcome in outcomes.values()} == {"completed"}
