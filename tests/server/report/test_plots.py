from collections.abc import Callable
from typing import Any

from server.report.plots import reliability_curves, site_intervals

Make = Callable[..., dict[str, Any]]


def test_site_without_a_value_has_no_bar(make: Make) -> None:
    result = make(baselines=())
    result["final"]["sites"]["st-b"]["dice"]["value"] = None
    chart = site_intervals(result)
    assert chart is not None
    assert ">st-a<" in chart.svg
    assert ">st-b<" not in chart.svg


def test_interval_that_is_missing_leaves_the_value(make: Make) -> None:
    result = make(["st-a"], baselines=())
    result["final"]["sites"]["st-a"]["dice"] = {"value": 0.4, "low": None, "high": None, "n": 1}
    assert site_intervals(result) is not None


def test_a_reliability_curve_is_drawn_of_every_site_beside_the_line_where_it_should_be(
    make: Make,
) -> None:
    result = make()
    assert reliability_curves(result) is None
    curve = [{"confidence": 0.6 + 0.1 * k, "accuracy": 0.9, "patients": 9} for k in range(4)]
    result["shift"] = {"reliability": {"st-a": curve, "st-b": curve[:1]}}
    chart = reliability_curves(result)
    assert chart is not None
    assert [key.label for key in chart.keys] == ["st-a", "st-b", "as sure as it is right"]
