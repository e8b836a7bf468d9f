from typing import Any

import pytest

from server.evaluation.left_out import gap_of, row_of, summary_of


def row(site: str, inside: float | None, outside: float | None) -> dict[str, Any]:
    return {"site": site, "inside": inside, "outside": outside, "others": None}


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
    sites = {site: {"dice": {"value": value}} for site, value in values.items()}
    return {"headline": "dice", "status": status, "final": {"sites": sites}}


def test_a_row_holds_one_site_beside_the_mean_of_the_others() -> None:
    without = result("partial", a=0.5, b=0.6, c=0.8, d=None)
    assert row_of("a", result("completed", a=0.9, b=0.1), without) == {
        "site": "a",
        "status": "partial",
        "inside": 0.9,
        "outside": 0.5,
        "others": pytest.approx(0.7),
    }
    assert row_of("z", result("completed"), without)["inside"] is None
