from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract import Estimate
from common.tasks.task import Metric
from server.generalisation import adjusted, step_of
from server.records import RoundRecord
from server.strategy import gaps_of
from tests.builders import site_round

SITES = ("st-a", "st-b", "st-c")
SHARES = st.tuples(*[st.floats(0.01, 1.0)] * 3).map(
    lambda values: {s: v / sum(values) for s, v in zip(SITES, values, strict=True)}
)
GAPS = st.tuples(*[st.none() | st.floats(-1.0, 1.0)] * 3).map(
    lambda values: dict(zip(SITES, values, strict=True))
)


@given(shares=SHARES, gaps=GAPS, step=st.floats(0.01, 0.5))
def test_shares_stay_shares(
    shares: dict[str, float], gaps: dict[str, float | None], step: float
) -> None:
    after = adjusted(shares, gaps, step)
    assert sum(after.values()) == pytest.approx(1.0)
    assert min(after.values()) > 0


@given(gaps=GAPS, step=st.floats(0.01, 0.5))
def test_of_equal_shares_the_larger_gap_has_the_larger_after(
    gaps: dict[str, float | None], step: float
) -> None:
    after = adjusted(dict.fromkeys(SITES, 1 / 3), gaps, step)
    known = {site: gap for site, gap in gaps.items() if gap is not None}
    by_gap = sorted(known, key=lambda site: known[site])
    assert all(after[low] <= after[high] for low, high in pairwise(by_gap))


def test_the_adjustment_is_the_papers() -> None:
    # Gaps about their mean: 0.3, -0.1, -0.2; over the largest: 1, -1/3, -2/3.
    after = adjusted(
        {"st-a": 0.5, "st-b": 0.3, "st-c": 0.2}, {"st-a": 0.5, "st-b": 0.1, "st-c": 0.0}, 0.15
    )
    assert after == pytest.approx({"st-a": 0.65, "st-b": 0.25, "st-c": 0.1})
    assert step_of(0.2, 5, 10) == pytest.approx(0.1)
    assert step_of(0.2, 10, 10) == 0.0


def test_a_gap_is_of_the_metric_itself_whichever_way_is_better() -> None:
    def round_of(number: int, before: float, after: float) -> RoundRecord:
        told = {"before": before, "after": after}
        part = site_round(
            **{key: {"m": Estimate(value=v, low=None, high=None, n=9)} for key, v in told.items()}
        )
        return RoundRecord(
            round=number, seconds=1.0, participants=["st-a"], missing={}, sites={"st-a": part}
        )

    rounds = round_of(1, 0.1, 0.7), round_of(2, 0.5, 0.9)
    dice = Metric(higher_is_better=True, unit="", meaning="overlap")
    distance = Metric(higher_is_better=False, unit="mm", meaning="distance", high=1000.0)
    assert gaps_of(*rounds, ("m", dice)) == {"st-a": pytest.approx(0.2)}
    # Tenths of a millimetre count too.
    assert gaps_of(*rounds, ("m", distance)) == {"st-a": pytest.approx(-0.2)}


def test_equal_gaps_and_unknown_ones_change_nothing() -> None:
    shares = {"st-a": 0.6, "st-b": 0.4}
    assert adjusted(shares, {"st-a": 0.2, "st-b": 0.2}, 0.1) == pytest.approx(shares)
    assert adjusted(shares, {"st-a": None, "st-b": 0.2}, 0.1) == pytest.approx(shares)
