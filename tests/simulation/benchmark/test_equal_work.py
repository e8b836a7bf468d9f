from pathlib import Path

import pytest

from simulation.benchmark import equal_work
from simulation.benchmark.equal_work import BARE, COLUMNS, OURS, Load, row_of, rows_of, rows_of_load
from simulation.benchmark.scale import STUDY, write_data


def test_the_bare_loop_takes_our_steps_from_our_weights_on_our_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(equal_work, "PEERS", ())
    data = tmp_path / "data"
    write_data(data, hospitals=2, side=32)
    small = ("model.channels=[4,8]", "model.norm_groups=2", "data.augment=none")
    steps = ("training.lr=0.1", "training.batch_size=4", "training.local_steps=3")
    load = Load(name="tiny", hospitals=2, overrides=(*STUDY, *small, *steps))
    bare, *both = rows_of_load(tmp_path, load, data, turns=1)
    assert bare["name"] == f"{BARE}@tinyx2"
    assert bare["to_bare"] == bare["low"] == bare["high"] == 1.0
    assert [row["name"] for row in both] == [f"{name}@tinyx2" for name in OURS]
    for ours in both:
        assert float(ours["apart"]) < 1e-6
        assert ours["score"] == pytest.approx(bare["score"])


def test_a_row_holds_each_turn_against_the_bare_loop_of_that_turn() -> None:
    def turn(round_s: float) -> dict[str, object]:
        return {"round_ms": [9e9, 1000 * round_s, 1000 * round_s], "start_s": round_s}

    bare, ours = [turn(1.0), turn(2.0), turn(4.0)], [turn(1.5), turn(2.0), turn(10.0)]
    row = row_of("ours", ours, bare, score=0.5, apart=0.0)
    assert [row[name] for name in ("to_bare", "low", "high")] == [1.5, 1.0, 2.5]
    assert (row["round_s"], row["start_s"]) == (2.0, 2.0)
    once = row_of("nvflare", ours[:1], bare, score=0.5, apart=0.0)
    assert [once[name] for name in ("to_bare", "low", "high")] == [1.5, 1.5, 1.5]


def test_without_the_data_the_benchmark_says_so_in_the_same_columns(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path / "nowhere", quick=False)
    assert row.keys() == {"name", *COLUMNS, "why_not"}
    assert "nowhere" in str(row["why_not"])


def test_a_load_that_fails_is_a_row_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overrides = (*STUDY, "model.channels=[4,8]", "model.norm_groups=2", "data.augment=none")
    whole = Load(name="whole", hospitals=2, overrides=(*overrides, "training.local_steps=1"))
    broken = Load(name="broken", hospitals=2, overrides=(*overrides, "training.lr=none"))
    monkeypatch.setattr(equal_work, "PEERS", ())
    monkeypatch.setattr(equal_work, "OURS", {"ours": "inprocess"})
    monkeypatch.setattr(equal_work, "LOADS", (broken, whole))
    monkeypatch.setattr(equal_work, "TURNS", 2)
    data = tmp_path / "data"
    write_data(data, hospitals=2, side=32)
    first, *others = rows_of(data, quick=False)
    assert "exit code" in str(first["why_not"])
    assert [row["name"] for row in others] == [f"{BARE}@wholex2", "ours@wholex2"]
    assert all(row["why_not"] == "" for row in others)
    assert others[1]["low"] < others[1]["to_bare"] < others[1]["high"]
