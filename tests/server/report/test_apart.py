from itertools import combinations
from typing import Any

import numpy as np
import pytest

from common.tasks.task import Metric
from server.evaluation.plane import places_of
from server.evaluation.shift import summary_of
from server.report.apart import (
    alarm_sentence,
    left_out_sentence,
    over_rounds,
    places,
    prediction_sentence,
    tables,
)
from server.report.render import render_report
from tests.server.report.conftest import Make

DICE = Metric(higher_is_better=True, unit="", meaning="overlap")


def shift_of(points: list[tuple[float, float]]) -> dict[str, Any]:
    sites = [f"site-{i}" for i in range(len(points))]
    of: dict[str, dict[str, float]] = {site: {} for site in sites}
    for (a, p), (b, q) in combinations(zip(sites, points, strict=True), 2):
        of[a][b] = of[b][a] = float(np.hypot(p[0] - q[0], p[1] - q[1]))
    numbers = {"distance": 0.1, "drop": 0.2, "predicted": 0.15, "low": 0.0, "high": 0.3}
    return {
        "distance": {"appearance": of, "mmd": of},
        "map": {"measure": "appearance", "sites": places_of(of)},
        "noise": dict.fromkeys(sites, 0.0),
        "floor": {"appearance": 0.0, "mmd": 0.0},
        "prediction": {
            "measure": "appearance",
            "sites": {site: dict(numbers) for site in sites},
            "covered": len(sites),
            "mean_error": 0.05,
            "mean_error_without": 0.08,
        },
    }


def test_a_run_without_distances_has_no_map() -> None:
    assert places({}) == []
    assert tables({"shift": {}}) == []
    assert prediction_sentence({"shift": {}}) == ""


def test_two_sites_are_no_map_but_a_table() -> None:
    result = {"shift": shift_of([(0.0, 0.0), (0.3, 0.4)])}
    assert places(result) == []
    (first, _) = tables(result)
    assert first.rows[0] == ("site-0", [None, pytest.approx(0.5)])


def test_rounds_are_in_their_order_and_the_end_is_the_last() -> None:
    after = {"10": {"mmd": 0.3}, "2": {"mmd": 0.4}}
    shift = {"distance_mean_after": after, "distance_mean": {"mmd": 0.2}}
    found = over_rounds({"shift": shift, "rounds": [{}] * 12})
    assert found == (["mmd"], [("2", [0.4]), ("10", [0.3]), ("12", [0.2])])
    assert over_rounds({"shift": {"distance_mean": {"mmd": 0.2}}}) == ([], [])


def test_the_sentence_names_whose_images_changed_and_the_rate_of_false_alarms() -> None:
    sites: dict[str, Any] = {
        name: {"round": None, "since": 1, "distance_after": {}} for name in ("st-a", "st-b")
    }
    result = {"shift": {"alarm": {"false_alarm_rate": 0.01, "sites": sites}}}
    assert "No site's images changed" in alarm_sentence(result)
    sites["st-b"]["round"] = 3
    told = alarm_sentence(result)
    assert "st-b after round 3" in told
    assert "st-a" not in told
    assert "1 % of studies" in told
    assert alarm_sentence({"shift": {}}) == ""


def test_the_sentence_says_whether_distance_tells() -> None:
    shift = shift_of([(0.0, 0.0), (0.3, 0.4), (1.0, 0.0)])
    assert "3 of 3 lie in" in prediction_sentence({"shift": shift})
    assert "distance tells something here" in prediction_sentence({"shift": shift})
    sites = shift["prediction"]["sites"]
    for site in ("site-1", "site-2"):
        sites[site]["predicted"] = -0.05
    told = prediction_sentence({"shift": shift})
    assert "does worse at site-0, and no more than that" in told
    sites["site-0"]["predicted"] = -0.5
    assert "does not tell" in prediction_sentence({"shift": shift})


def test_what_was_predicted_of_a_site_that_the_model_had_not_seen_is_told_apart(
    make: Make,
) -> None:
    told = shift_of([(0.0, 0.0), (0.3, 0.4), (1.0, 0.0)])["prediction"]
    row = {"site": "site-0", "inside": 0.6, "outside": 0.5, "others": 0.7}
    about = {"rows": [row], "gaps": {"site-0": 0.1}, "mean_gap": 0.1, "largest_gap_at": "site-0"}
    shift = {"metric": "dice", "left_out": {**about, "prediction": {**told, "covered": 2}}}
    sentence = left_out_sentence({"shift": shift})
    assert "2 of 3 lie in their 95 % interval" in sentence
    assert "off by 0.050 on average; to expect no drop anywhere is off by 0.080" in sentence
    page = render_report({**make(), "shift": shift}, [])
    assert sentence.replace("'", "&#39;") in page
    assert "a model without it is worse at each hospital" in page
    shift["left_out"].pop("prediction")
    assert left_out_sentence({"shift": shift}) == ""
    page = render_report({**make(), "shift": shift}, [])
    assert "hospital get that did not join" in page
    assert "a model without it is worse" not in page


def test_the_page_has_the_map_and_every_distance(make: Make) -> None:
    result = make()
    assert "How far apart are the sites?" not in render_report(result, [])
    result["shift"] = {
        **shift_of([(0.0, 0.0), (0.3, 0.4), (1.0, 0.0)]),
        "metric": "dice",
        "matrix": {"federated": {}},
        "benefit": {},
        "summary": {"federated": summary_of({}, DICE)},
    }
    page = render_report(result, [])
    for text in (
        *("How far apart are the sites?", "3 of 3 lie in", "Mmd", "sites as far apart"),
        "Where each hospital lies on the map",
    ):
        assert text in page
