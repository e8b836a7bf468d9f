from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.schema import SettingsError
from simulation.outcomes import (
    Outcome,
    key_of,
    megabytes_of,
    outcome_of,
    read_outcomes,
    write_outcomes,
)
from simulation.run import composed

PART = {"bytes_sent": 1_000_000, "bytes_received": 2_000_000}
RESULT: dict[str, Any] = {
    "headline": "dice",
    "status": "completed",
    "metrics": {"dice": {"higher_is_better": True}},
    "final": {"sites": {"a": {"dice": {"value": None}}, "b": {"dice": {"value": 0.5}}}},
    "baselines": {"pooled": {"sites": {"a": {"dice": {"value": 0.7}}, "b": {}}}},
    "shift": {"matrix": {"personal": {"b": {"value": 0.6}}, "local/a": {"b": {"value": 0.1}}}},
    "study": {"strategy": {"fairness_q": None}},
    "rounds": [{"sites": {"a": PART, "b": PART}}] * 3,
    "seconds": 7.0,
    "software": {"wardround": "1", "torch": "2"},
}


def made(**changed: Any) -> Outcome:
    return replace(outcome_of(RESULT, "smoke/fedavg/seed-0", "00ff"), **changed)


def test_an_outcome_has_the_models_of_a_row_where_they_have_a_value() -> None:
    assert made().values == {"federated": {"b": 0.5}, "pooled": {"a": 0.7}, "personal": {"b": 0.6}}
    assert megabytes_of(RESULT) == made().megabytes == 18.0
    assert made().made_with.startswith("wardround 1, torch 2, ")


@pytest.mark.parametrize("setting", ["fairness_q", "generalisation_step"])
def test_an_outcome_says_that_tested_patients_set_its_weights(setting: str) -> None:
    tuned = {**RESULT, "study": {"strategy": {setting: 2.0}}}
    assert outcome_of(tuned, "", "").weighted_by_held_out
    assert not made().weighted_by_held_out


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
    ]
    assert len({key(), *others}) == 1 + len(others)


def test_a_key_is_of_the_images_that_the_data_set_lists(tmp_path: Path) -> None:
    keys = []
    for listed in ("one", "another"):
        (tmp_path / "manifest.csv").write_text(listed)
        overrides = ["experiment=retina", f"data.root={tmp_path}"]
        keys.append(key_of(composed(tmp_path / "run", overrides), baselines=False))
    assert keys[0] != keys[1]
