from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from common.contract import Description, Estimate
from common.tasks.task import Metric
from server.evaluation.shift import (
    benefit_after,
    benefit_of,
    cells_of,
    cells_of_result,
    concordance,
    shift_of,
    summary_of,
    with_models,
)
from server.records import Outcome, Progress, RoundRecord
from tests.builders import site_round

DICE = Metric(higher_is_better=True, unit="", meaning="overlap")
DISTANCE = replace(DICE, higher_is_better=False, unit="mm")
SITES = ("st-a", "st-b", "st-c", "st-d")
ABOUT = {
    site: Description(site=site, patients_train=9, patients_held_out=9, images_train=9, bad_files=0)
    for site in SITES
}


def told(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=9)


OUTCOME = Outcome(
    status="partial",
    reason=None,
    final={"st-a": {"dice": told(0.8, 0.7, 0.9)}, "st-b": {"dice": told(0.6, 0.5, 0.7)}},
    final_missing={"st-c": "policy: not allowed here", "st-d": "is not connected"},
    others={
        "st-a": {"local": {"dice": told(0.7)}, "personal": {"dice": told(0.9)}},
        "st-b": {"local": {}},
    },
    gains={"st-a": {"local": {"dice": told(0.1, 0.05, 0.2)}}, "st-b": {"local": {}}},
)


def test_every_model_has_a_cell_at_every_site_with_a_value_or_why_not() -> None:
    shift = shift_of(Progress(roster=ABOUT), OUTCOME, "dice", DICE)
    assert set(shift["matrix"]) == {"federated", "local", "personal"}
    statuses = {m: {s: c["status"] for s, c in of.items()} for m, of in shift["matrix"].items()}
    assert statuses["federated"] == {
        "st-a": "ok",
        "st-b": "ok",
        "st-c": "refused",
        "st-d": "failed",
    }
    assert statuses["local"] == {
        "st-a": "ok",
        "st-b": "suppressed",
        "st-c": "refused",
        "st-d": "failed",
    }
    for of in shift["matrix"].values():
        for cell in of.values():
            assert (cell["value"] is None) == (cell["status"] != "ok") == bool(cell.get("why"))
    assert shift["matrix"]["federated"]["st-d"]["why"] == "is not connected"


def test_a_site_that_never_came_is_in_the_matrix_too() -> None:
    progress = Progress(roster=ABOUT, absent={"st-z": "did not introduce itself"})
    shift = shift_of(progress, OUTCOME, "dice", DICE)
    assert shift["matrix"]["federated"]["st-z"]["status"] == "failed"
    assert shift["benefit"]["st-z"]["verdict"] == "unknown"


def test_a_site_that_answered_counts_though_it_was_absent_before() -> None:
    progress = Progress(roster=ABOUT, absent={"st-a": "did not introduce itself"})
    cell = shift_of(progress, OUTCOME, "dice", DICE)["matrix"]["federated"]["st-a"]
    assert (cell["status"], cell["value"]) == ("ok", 0.8)


def test_a_comparison_that_failed_costs_the_own_models_alone() -> None:
    apart = replace(
        OUTCOME,
        others={"st-b": {"local": {"dice": told(0.5)}}},
        gains={},
        not_compared={"st-a": "training: diverged"},
    )
    shift = shift_of(Progress(roster=ABOUT), apart, "dice", DICE)
    assert shift["matrix"]["federated"]["st-a"]["status"] == "ok"
    assert shift["matrix"]["local"]["st-a"]["why"] == "training: diverged"
    assert shift["benefit"]["st-a"]["verdict"] == "unknown"


ENDS = st.floats(-1, 1)


@given(ends=st.tuples(ENDS, ENDS, ENDS).map(sorted), metric=st.sampled_from([DICE, DISTANCE]))
def test_helped_and_harmed_are_intervals_on_one_side_of_0(
    ends: list[float], metric: Metric
) -> None:
    low, value, high = ends
    benefit = benefit_of({"local": {"m": told(value, low, high)}}, "m", metric)
    sign = 1 if metric.higher_is_better else -1
    assert benefit["gap"] == sign * value
    assert benefit["low"] <= benefit["gap"] <= benefit["high"]
    if benefit["verdict"] == "helped":
        assert benefit["low"] > 0
    elif benefit["verdict"] == "harmed":
        assert benefit["high"] < 0
    else:
        assert benefit["low"] <= 0 <= benefit["high"]


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({}, "unknown"),
        ({"personal": {"m": told(0.1, 0.0, 0.2)}}, "unknown"),
        ({"local": {"m": told(None)}}, "unknown"),
        ({"local": {"m": told(0.1)}}, "undecided"),
    ],
)
def test_without_an_own_model_nothing_is_known_and_without_an_interval_nothing_decided(
    gains: dict[str, dict[str, Estimate]], verdict: str
) -> None:
    assert benefit_of(gains, "m", DICE)["verdict"] == verdict


@pytest.mark.parametrize(("metric", "sign"), [(DICE, 1.0), (DISTANCE, -1.0)])
def test_the_benefit_of_a_round_is_its_model_minus_the_sites_own(
    metric: Metric, sign: float
) -> None:
    # A round's `before` is the model of the rounds before it.
    rounds = [
        RoundRecord(
            round=number,
            seconds=1.0,
            participants=["st-a", "st-b"],
            missing={},
            sites={site: site_round(before={"dice": told(value)}) for site in ("st-a", "st-b")},
        )
        for number, value in ((1, 0.2), (2, 0.75))
    ]
    progress = Progress(roster=ABOUT, rounds=rounds, initial={"st-a": {"dice": told(0.3)}})
    after = benefit_after(progress, OUTCOME, "dice", metric)
    assert {number: of["st-a"] for number, of in after.items()} == {
        "0": pytest.approx(sign * -0.4),
        "1": pytest.approx(sign * 0.05),
        "2": pytest.approx(sign * 0.1),
    }
    # st-b told nothing of a model of its own.
    assert all(set(of) == {"st-a"} for of in after.values())


def test_the_summary_counts_the_sites_that_have_a_value() -> None:
    cells = shift_of(Progress(roster=ABOUT), OUTCOME, "dice", DICE)["matrix"]["federated"]
    assert summary_of(cells, DICE) == {
        "mean": pytest.approx(0.7),
        "worst": 0.6,
        "worst_site": "st-b",
        "spread": pytest.approx(0.1),
        "sites": 2,
    }
    assert summary_of(cells, DISTANCE)["worst_site"] == "st-a"
    assert summary_of({}, DICE)["mean"] is None


def test_more_models_are_added_at_the_same_sites() -> None:
    shift = shift_of(Progress(roster=ABOUT), OUTCOME, "dice", DICE)
    more = with_models(
        shift, {"pooled": cells_of({"st-a": {"dice": told(0.9)}}, SITES, "dice")}, DICE
    )
    assert set(more["matrix"]["pooled"]) == set(more["matrix"]["federated"])
    assert more["matrix"]["pooled"]["st-b"]["status"] == "suppressed"
    assert more["summary"]["pooled"]["mean"] == 0.9
    assert more["benefit"] == shift["benefit"]
    assert "pooled" not in shift["matrix"]


def matrix_of(*rows: list[float | None]) -> dict[str, dict[str, dict[str, object]]]:
    return {
        f"model-{i}": {
            site: {"value": value, "status": "ok" if value is not None else "failed"}
            for site, value in zip(SITES, row, strict=True)
        }
        for i, row in enumerate(rows)
    }


def test_sites_that_rank_models_alike_agree_wholly_and_opposite_ones_not_at_all() -> None:
    low, high = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    assert concordance(matrix_of(low, high)) == pytest.approx(1.0)
    assert concordance(matrix_of([0.1, 0.9, 0.1, 0.9], [0.5] * 4)) == pytest.approx(0.0)
    assert concordance(matrix_of(low)) is None
    assert concordance(matrix_of([0.1, None, None, None], [0.2, 0.3, 0.4, 0.5])) is None


@given(st.lists(st.permutations([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=4, max_size=4))
def test_concordance_is_the_mean_rank_correlation_of_the_sites(sites: list[list[float]]) -> None:
    rows = [list(values) for values in zip(*sites, strict=True)]
    pairs = [spearmanr(a, b).statistic for a, b in combinations(sites, 2)]
    # W = ((n - 1) r + 1) / n, with r the mean of Spearman's correlations over the pairs.
    assert concordance(matrix_of(*rows)) == pytest.approx((3 * np.mean(pairs) + 1) / 4)


def test_the_gap_to_pooled_is_of_the_means_and_turned() -> None:
    shift = shift_of(Progress(roster=ABOUT), OUTCOME, "dice", DICE)
    pooled = {"pooled": cells_of({s: {"dice": told(0.9)} for s in SITES}, SITES, "dice")}
    found = with_models(shift, pooled, DICE)["summary"]
    assert found["federated"]["gap_to_pooled"] == pytest.approx(0.7 - 0.9)
    assert found["pooled"]["gap_to_pooled"] == 0
    turned = with_models(shift, pooled, DISTANCE)["summary"]
    assert turned["federated"]["gap_to_pooled"] == pytest.approx(0.9 - 0.7)


def test_a_model_with_a_study_of_its_own_has_a_cell_or_a_reason_at_every_site() -> None:
    told_there = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    result = {
        "reason": "st-d: never came",
        "sites": {"st-a": {}, "st-b": {}, "st-c": {}},
        "final": {
            "sites": {"st-a": {"dice": told_there}, "st-c": {}},
            "missing": {"st-b": "policy: not here"},
        },
    }
    found = cells_of_result(result, ["st-a", "st-b", "st-c", "st-d"], "dice")
    assert found["st-a"] == {**told_there, "status": "ok"}
    statuses = {site: cell["status"] for site, cell in found.items()}
    assert statuses == {"st-a": "ok", "st-b": "refused", "st-c": "suppressed", "st-d": "failed"}
    assert found["st-d"]["why"] == "st-d: never came"
