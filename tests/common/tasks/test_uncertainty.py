import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.tasks.uncertainty import area_under_risk, curve_of, entropy, risk_at, unsureness

ANSWERS = st.lists(st.tuples(st.integers(0, 511), st.sampled_from([0.0, 1.0])), min_size=1)


def total(answers: list[tuple[int, float]]) -> np.ndarray:
    return np.sum([curve_of((bin_ + 0.5) / 512, risk) for bin_, risk in answers], axis=0)


def test_entropy_is_nothing_where_one_class_is_sure_and_one_where_none_is() -> None:
    assert float(entropy(torch.tensor([1.0, 0.0]))) == pytest.approx(0.0, abs=1e-6)
    assert float(entropy(torch.full((5,), 0.2))) == pytest.approx(1.0)
    p = torch.tensor([0.9, 0.1])
    expected = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    assert float(entropy(p)) == pytest.approx(expected)


def test_a_sure_background_does_not_hide_an_unsure_lesion() -> None:
    unsure = torch.zeros(2, 10, 10)
    unsure[0] = 1.0
    unsure[:, 4:6, 4:6] = 0.5
    wide = torch.cat([unsure, torch.stack([torch.ones(90, 10), torch.zeros(90, 10)])], dim=1)
    assert unsureness(unsure) == pytest.approx(unsureness(wide)) == pytest.approx(4 / 3, rel=1)
    sure = unsure.clone()
    sure[0, 4:6, 4:6], sure[1, 4:6, 4:6] = 0.0, 1.0
    assert unsureness(sure) < 0.01 < unsureness(unsure)


@given(answers=ANSWERS)
def test_risk_at_a_coverage_is_that_of_the_surest_answers(
    answers: list[tuple[int, float]],
) -> None:
    curve = total(answers)
    assert risk_at(curve, 1.0) == pytest.approx(np.mean([risk for _, risk in answers]))
    ranked = sorted(answers)
    kept = [risk for bin_, risk in ranked if bin_ <= ranked[0][0]]
    assert risk_at(curve, len(kept) / len(answers)) == pytest.approx(np.mean(kept))
    assert 0.0 <= area_under_risk(curve) <= 1.0


@given(first=ANSWERS, second=ANSWERS)
def test_the_curves_of_two_sites_add_up_to_that_of_the_union(
    first: list[tuple[int, float]], second: list[tuple[int, float]]
) -> None:
    np.testing.assert_array_equal(total(first) + total(second), total([*first, *second]))


def test_leaving_out_the_unsure_wrong_answers_takes_the_risk_away() -> None:
    curve = total([(10, 0.0)] * 8 + [(400, 1.0)] * 2)
    assert (risk_at(curve, 1.0), risk_at(curve, 0.8)) == pytest.approx((0.2, 0.0))
    assert math.isnan(risk_at(np.zeros((2, 512)), 0.8))
