import re
from collections.abc import Callable
from typing import Any

import pytest

from server.report.curves import (
    benefit_curves,
    calibration_curves,
    epsilon_curves,
    headline_curves,
)
from server.report.plots import site_intervals

Make = Callable[..., dict[str, Any]]


def test_every_chart_takes_its_colours_from_the_page(make: Make) -> None:
    result = make()
    for chart in (headline_curves(result), epsilon_curves(result), site_intervals(result)):
        assert chart is not None
        # White is matplotlib's own, for patches that are not painted.
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart.svg)) <= {"#ffffff", "#000000"}
        assert "var(--ink)" in chart.svg


def test_few_sites_have_a_colour_and_a_dash_each(make: Make) -> None:
    chart = headline_curves(make([f"s{k}" for k in range(8)]))
    assert chart is not None
    styles = [(key.colour, key.dash) for key in chart.keys]
    assert len(set(styles)) == len(styles) == 9


@pytest.mark.parametrize(("headline", "word"), [("dice", "lowest"), ("hd95", "highest")])
def test_many_sites_are_a_crowd_with_the_worst_named(make: Make, headline: str, word: str) -> None:
    result = {**make([f"s{k:02d}" for k in range(9)]), "headline": headline}
    chart = headline_curves(result)
    assert chart is not None
    worst = result["final"]["worst_site"][headline]
    labels = [key.label for key in chart.keys]
    assert labels == ["each of 9 sites", f"{word} at the end: {worst}", "mean of the sites"]


def test_no_privacy_has_no_epsilon_curve(make: Make) -> None:
    assert epsilon_curves(make(private=False)) is None


def test_untrained_value_of_zero_is_a_value(make: Make) -> None:
    result = make(["st-a"], rounds=1)
    result["rounds"][0]["sites"]["st-a"]["before"]["dice"]["value"] = 0.0
    result["initial"]["sites"] = {}
    result["final"]["sites"] = {}
    chart = headline_curves(result)
    assert chart is not None
    assert [key.label for key in chart.keys] == ["st-a", "mean of the sites"]


def test_long_names_are_cut_in_charts(make: Make) -> None:
    chart = headline_curves(make(["x" * 60, "y"]))
    assert chart is not None
    assert chart.keys[0].label == "x" * 23 + "\N{HORIZONTAL ELLIPSIS}"


def test_the_calibration_error_has_a_curve_where_the_task_has_one(make: Make) -> None:
    result = make(["st-a"], rounds=3)
    assert calibration_curves(result) is None
    result["metrics"] = {**result["metrics"], "ece": result["metrics"]["hd95"]}
    for record in result["rounds"]:
        told = {"value": 0.1 * record["round"], "low": None, "high": None, "n": 6}
        record["sites"]["st-a"]["before"]["ece"] = told
    chart = calibration_curves(result)
    assert chart is not None
    assert chart.lines["st-a"] == [(0, 0.1), (1, 0.2), (2, pytest.approx(0.3))]


def test_the_benefit_is_drawn_in_the_order_of_the_rounds() -> None:
    after = {"10": {"st-a": 0.3}, "2": {"st-a": -0.1, "st-b": 0.0}}
    chart = benefit_curves({"shift": {"benefit_after": after}})
    assert chart is not None
    assert chart.lines == {"st-a": [(2, -0.1), (10, 0.3)], "st-b": [(2, 0.0)]}
    assert benefit_curves({"shift": {}}) is None
