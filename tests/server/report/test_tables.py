import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.report.tables import (
    MOST_ROUNDS,
    baseline_rows,
    best_guess,
    key_figures,
    missing_rows,
    privacy_rows,
    round_rows,
    rows_of,
    settings,
    site_rows,
)

Make = Callable[..., dict[str, Any]]


def test_change_is_after_minus_before(make: Make) -> None:
    for row in site_rows(make()):
        assert row.change == pytest.approx(row.after["value"] - row.before["value"])


def test_only_the_worst_site_is_marked(make: Make) -> None:
    result = make()
    worst = result["final"]["worst_site"]["dice"]
    assert [row.name for row in site_rows(result) if row.is_worst] == [worst]


def test_most_exposed_site_leads(make: Make) -> None:
    result = make()
    result["privacy"]["st-b"] = {**result["privacy"]["st-b"], "epsilon": 7.5}
    assert privacy_rows(result)[0].site == "st-b"
    exposure = next(figure for figure in key_figures(result) if figure.name == "Epsilon")
    assert exposure.value == "7.50"
    assert "st-b" in exposure.about


def test_round_sums_what_its_sites_moved(make: Make) -> None:
    row = round_rows(make(rounds=2, private=False))[1]
    assert (row.round, row.bytes_sent, row.bytes_received, row.train_loss) == (2, 3000, 6000, 0.5)


def test_missing_sites_are_grouped_by_reason(make: Make) -> None:
    result = make(rounds=5)
    for record, why in zip(result["rounds"], ["late", "late", "", "refused", "late"], strict=True):
        record["missing"] = {"st-b": why} if why else {}
    rows = [(row.site, row.rounds, row.why) for row in missing_rows(result)]
    assert rows == [("st-b", "1\N{EN DASH}2, 5", "late"), ("st-b", "4", "refused")]


def test_gain_of_a_baseline_follows_the_metric_direction(make: Make) -> None:
    result = make(baselines=("pooled",))
    result["final"]["mean"] = {"dice": 0.5, "hd95": 5.0}
    result["baselines"]["pooled"]["mean"] = {"dice": 0.6, "hd95": 6.0}
    assert baseline_rows(result)[1].gain == pytest.approx(0.1)
    assert baseline_rows({**result, "headline": "hd95"})[1].gain == pytest.approx(-1.0)
    assert baseline_rows(result)[0].gain is None


def test_best_guess_is_a_coin_without_any_loss_of_privacy() -> None:
    assert best_guess(0.0, 0.0) == 0.5
    assert best_guess(1000.0, 1e-3) == 1.0


@given(st.floats(0, 30), st.floats(0, 1))
def test_best_guess_is_the_best_point_of_the_privacy_region(epsilon: float, delta: float) -> None:
    # The best of false alarm rate f and miss rate m with f + e^eps m >= 1 - delta and
    # m + e^eps f >= 1 - delta lies where f = m, so the errors are (1 - delta) / (1 + e^eps).
    error = (1 - delta) / (1 + math.exp(epsilon))
    assert best_guess(epsilon, delta) == pytest.approx(1 - error)


def test_settings_are_named_by_their_path() -> None:
    study = {"name": "s", "model": {"name": "unet", "extra": {}}, "data": {"size": [8, 8]}}
    assert list(settings(study)) == [
        ("name", "s"),
        ("model.name", "unet"),
        ("model.extra", "{}"),
        ("data.size", "8, 8"),
    ]


def test_a_chart_as_a_table_has_its_ends_and_no_more_rows_than_can_be_read() -> None:
    lines = {"st-a": [(x, x / 1000) for x in range(0, 1001)], "st-b": [(1000, 2.0)]}
    rows = rows_of(lines)
    assert len(rows) <= MOST_ROUNDS + 1
    assert rows[0] == (0, [0.0, None])
    assert rows[-1] == (1000, [1.0, 2.0])
    assert rows_of({"st-a": [(0, 1.0), (3, 2.0)]}) == [(0, [1.0]), (3, [2.0])]
