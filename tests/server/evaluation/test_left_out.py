from dataclasses import asdict
from typing import Any

import pytest

from common.contract import Estimate
from common.tasks.task import Metric
from server.evaluation.left_out import gap_of, row_of, summary_of, table_of, with_left_out

DICE = Metric(True, "", "overlap")


def row(site: str, inside: float | None, outside: float | None) -> dict[str, Any]:
    told = {"site": site, "inside": inside, "outside": outside, "others": None}
    return {**told, "low": None, "high": None}


def test_a_gap_is_turned_so_that_more_is_better_inside() -> None:
    assert gap_of(row("a", 0.8, 0.6), True) == pytest.approx(0.2)
    assert gap_of(row("a", 8.0, 6.0), False) == pytest.approx(-2.0)
    assert gap_of(row("a", None, 0.6), True) is None


def test_the_summary_is_over_the_sites_that_have_both() -> None:
    rows = [row("a", 0.8, 0.6), row("b", 0.7, 0.2), row("c", None, 0.1)]
    about = summary_of(rows, True)
    assert about["mean_gap"] == pytest.approx(0.35)
    assert about["largest_gap_at"] == "b"
    assert about["gaps"]["c"] is None
    assert summary_of([], True)["mean_gap"] is None


def result(status: str, **values: float | None) -> dict[str, Any]:
    sites = {site: {"dice": {"value": value, "n": 7}} for site, value in values.items()}
    return {
        "headline": "dice",
        "metrics": {"dice": asdict(DICE)},
        "status": status,
        "final": {"sites": sites},
    }


def test_a_row_holds_one_site_beside_the_mean_of_the_others() -> None:
    without = result("partial", a=0.5, b=0.6, c=0.8, d=None)
    assert row_of("a", result("completed", a=0.9, b=0.1), without) == {
        "site": "a",
        "status": "partial",
        "n": 7,
        "inside": 0.9,
        "outside": 0.5,
        "others": pytest.approx(0.7),
        "low": None,
        "high": None,
    }
    assert row_of("z", result("completed"), without)["inside"] is None


def test_the_interval_of_a_gap_is_turned_with_it() -> None:
    gain = Estimate(value=0.4, low=0.1, high=0.6, n=7)
    whole, without = result("completed", a=0.9), result("completed", a=0.5)
    told = row_of("a", whole, without, gain)
    assert (told["low"], told["high"]) == (0.1, 0.6)
    whole["metrics"]["dice"]["higher_is_better"] = False
    told = row_of("a", whole, without, gain)
    assert (told["low"], told["high"]) == (-0.6, -0.1)
    assert told["low"] <= summary_of([told], False)["gaps"]["a"] <= told["high"]


def test_the_table_shows_the_interval_where_there_is_one() -> None:
    rows = [{**row("a", 0.8, 0.6), "low": 0.1, "high": 0.3}, row("b", 0.7, 0.2)]
    intervals = list(table_of(rows, True, "left out").columns[4].cells)
    assert intervals[:2] == ["0.100 to 0.300", "-"]


def test_the_result_has_the_rows_beside_what_it_told_before() -> None:
    whole, rows = result("completed", a=0.9), [row("a", 0.8, 0.6)]
    alone = with_left_out(whole, rows, {})["shift"]
    assert set(alone) == {"metric", "left_out"}
    beside = with_left_out({**whole, "shift": {"metric": "dice", "matrix": {}}}, rows, {})["shift"]
    assert beside == {**alone, "matrix": {}}
    assert "prediction" not in alone["left_out"]
    assert alone["left_out"]["rows"] == rows
    assert alone["left_out"]["largest_gap_at"] == "a"


def test_a_left_out_sites_drop_is_predicted_for_the_model_that_had_not_seen_it() -> None:
    sites = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}
    others = {"b": 0.1, "c": 0.2, "d": 0.3}
    told = {"a": {"distance": 0.5, "others": others}, "b": {"distance": 0.1, "others": {"a": 0.2}}}
    shift = {"metric": "dice", "prediction": {"measure": "appearance", "sites": told}}
    whole = {**result("completed", **sites), "shift": shift}
    without = {"a": result("completed", a=0.0, b=0.6, c=0.5, d=0.4), "b": result("failed")}
    found = with_left_out(whole, [], without)["shift"]["left_out"]["prediction"]
    assert found["measure"] == "appearance"
    # The others drop by 0.15 a step of 0.1, and lie at 0.5, the left-out site at none.
    assert found["sites"] == {
        "a": {
            "distance": 0.5,
            "drop": pytest.approx(0.5),
            "predicted": pytest.approx(0.45),
            "low": pytest.approx(0.45),
            "high": pytest.approx(0.45),
        }
    }
    assert found["mean_error"] == pytest.approx(0.05)
    assert found["mean_error_without"] == pytest.approx(0.5)
    lost = {"a": result("partial", a=0.0, b=0.6, c=0.5, d=None)}
    assert "prediction" not in with_left_out(whole, [], lost)["shift"]["left_out"]
