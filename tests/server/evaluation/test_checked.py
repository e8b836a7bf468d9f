from dataclasses import replace
from typing import Any

import pytest

from common.contract import Estimate, EvaluateReply, TrainReply
from common.tasks.registry import build_task
from server.evaluation.checked import impossible
from tests.builders import SLICES, study_from

STUDY = study_from(*SLICES, "evaluation=shift")
METRICS = build_task(STUDY.task).metrics


def told(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=9)


GOOD = EvaluateReply(
    site="st-a",
    round=1,
    seconds=0.0,
    estimates={"dice": told(0.8, 0.7, 0.9), "hd95_mm": told(30.0)},
    others={"local": {"dice": told(None)}},
    gains={"local": {"dice": told(-0.2, -1.0, 0.1)}},
)


def test_what_a_metric_can_be_passes() -> None:
    assert impossible(GOOD, STUDY, METRICS) is None
    trained = TrainReply(site="st-a", round=1, patients=1, steps=1, seconds=0.0)
    assert impossible(replace(trained, estimates=GOOD.estimates), STUDY, METRICS) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"estimates": {"dice": told(1.7e308)}}, "from 0 to 1"),
        ({"estimates": {"dice": told(0.5, -0.1, 0.6)}}, "from 0 to 1"),
        ({"estimates": {"x" * 9: told(0.5)}}, "does not have"),
        ({"others": {"theirs": {}}}, "no site has"),
        ({"others": {"local": {"dice": told(2.0)}}}, "from 0 to 1"),
        ({"gains": {"local": {"dice": told(1.5)}}}, "from -1 to 1"),
        ({"gains": {"local": {"secret": told(0.5)}}}, "does not have"),
    ],
)
def test_what_it_cannot_be_is_told(changes: dict[str, Any], why: str) -> None:
    assert why in str(impossible(replace(GOOD, **changes), STUDY, METRICS))
