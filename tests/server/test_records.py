import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from common.contract import Description, Estimate
from common.tasks.task import Metric
from server.records import (
    SCHEMA_VERSION,
    Outcome,
    Progress,
    RoundRecord,
    SiteRound,
    outcome_of,
    privacy_of,
    result_of,
    summary,
)
from tests.builders import PICTURES, site_round, spent, study_from

METRICS = {"dice": Metric(True, "", "overlap"), "hd95_mm": Metric(False, "mm", "distance")}
REASONS = st.dictionaries(st.sampled_from(["st-a", "st-b", "st-c"]), st.just("gone"), max_size=2)


def told(value: float | None) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=4)


def part(epsilon: float | None = None) -> SiteRound:
    return site_round(privacy=None if epsilon is None else spent(epsilon=epsilon))


def record(number: int, missing: dict[str, str], **sites: SiteRound) -> RoundRecord:
    return RoundRecord(
        round=number, seconds=1.5, participants=sorted(sites), missing=missing, sites=sites
    )


@given(absent=REASONS, first=REASONS, second=REASONS, final=REASONS)
def test_a_run_is_completed_only_if_no_site_was_missing_anywhere(
    absent: dict[str, str], first: dict[str, str], second: dict[str, str], final: dict[str, str]
) -> None:
    progress = Progress(absent=absent, rounds=[record(1, first), record(2, second)])
    outcome = outcome_of(progress, {}, final)
    lost = set(absent) | set(first) | set(second) | set(final)
    assert outcome.status == ("partial" if lost else "completed")
    assert (outcome.reason is None) == (not lost)
    assert all(f"{site}: gone" in str(outcome.reason) for site in lost)


def test_the_worst_site_is_the_lowest_or_the_highest_as_the_metric_says() -> None:
    estimates = {
        "st-a": {"dice": told(0.9), "hd95_mm": told(2.0)},
        "st-b": {"dice": told(0.5), "hd95_mm": told(1.0)},
        "st-c": {"dice": told(None), "hd95_mm": told(7.0)},
    }
    found = summary(estimates, METRICS)
    assert found["worst"] == {"dice": 0.5, "hd95_mm": 7.0}
    assert found["worst_site"] == {"dice": "st-b", "hd95_mm": "st-c"}
    assert found["mean"] == {"dice": 0.7, "hd95_mm": 10 / 3}
    assert found["sites"]["st-c"]["dice"] == asdict(told(None))


def test_a_metric_that_no_site_defines_has_neither_worst_nor_mean() -> None:
    found = summary({"st-a": {"dice": told(None)}}, METRICS)
    assert found["worst"] == {"dice": None, "hd95_mm": None}
    assert found["worst_site"] == {"dice": None, "hd95_mm": None}
    assert found["mean"] == {"dice": None}


def test_privacy_is_what_each_site_told_last_accepted_or_not() -> None:
    told_last = {site: part(epsilon).privacy for site, epsilon in (("b", 1.5), ("a", 2.0))}
    progress = Progress(rounds=[record(1, {"b": "NaN"}, a=part(1.0))], spent=told_last)
    spent = privacy_of(progress)
    assert {site: account["epsilon"] for site, account in spent.items()} == {"a": 2.0, "b": 1.5}


def test_a_result_is_json_without_nan() -> None:
    about = Description(
        site="a", patients_train=2, patients_held_out=1, images_train=4, bad_files=0
    )
    progress = Progress(
        roster={"a": about}, rounds=[record(1, {}, a=part(1.0)), record(2, {}, a=part(2.0))]
    )
    outcome = Outcome(status="completed", reason=None, final={"a": {"auroc": told(None)}})
    result = result_of(study_from(*PICTURES), progress, outcome, METRICS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["schema_version"] == SCHEMA_VERSION
    assert result["seconds"] == 3.0
    assert [r["participants"] for r in result["rounds"]] == [["a"], ["a"]]
