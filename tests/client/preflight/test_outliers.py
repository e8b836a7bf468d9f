from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.manifest import Row
from client.preflight.facts import Facts
from client.preflight.outliers import FEWEST, outliers, robust_z

numbers = st.lists(st.integers(-50, 50), min_size=3, max_size=30)


@given(numbers, st.integers(-1000, 1000), st.sampled_from([0.5, 2.0, 8.0]))
def test_the_score_depends_on_neither_origin_nor_unit(
    values: list[int], shift: int, scale: float
) -> None:
    array = np.array(values, float)
    np.testing.assert_allclose(robust_z(array * scale + shift), robust_z(array), atol=1e-9)


def test_of_normal_values_it_is_the_ordinary_score() -> None:
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    np.testing.assert_allclose(robust_z(values), (values - 3) / 2, atol=0.1)


def test_one_that_differs_from_equal_ones_is_far() -> None:
    scores = robust_z(np.array([1.0] * 20 + [2.0]))
    assert scores[-1] == pytest.approx(21 / 1.2533)
    assert not scores[:-1].any()
    assert not robust_z(np.ones(5)).any()


def test_a_volume_of_half_the_spacing_is_told_with_the_axis() -> None:
    row = Row(image=Path(__file__), patient="p")
    spacings = [1.0, 1.01, 0.99, 1.02, 1.0, 0.98, 1.0, 1.01, 0.5]
    facts = [Facts(row=row, size=(8, 8), spacing_mm=(1.0, mm), median=1, high=2) for mm in spacings]
    found = list(outliers(facts))
    assert [(name, one) for name, one, _ in found] == [("voxel size along axis 1", facts[-1])]
    assert not list(outliers(facts[-FEWEST + 1 :]))
