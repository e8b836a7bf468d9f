"""What numbers in few bits must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from common.few_bits import in_blocks, kept_of, largest_of, paired, to_bfloat16, unpaired

numbers_of_a_tensor = arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32)
)


@given(st.lists(st.integers(-8, 7), max_size=33))
def test_two_in_a_byte_come_back(numbers: list[int]) -> None:
    both = paired(np.array(numbers, np.int8))
    assert len(both) == (len(numbers) + 1) // 2
    assert unpaired(both, len(numbers)).tolist() == numbers


@given(numbers_of_a_tensor, st.floats(0.01, 1.0))
def test_none_that_stays_is_larger_than_one_that_travels(
    values_N: NDArray[np.float32], share: float
) -> None:
    which_N = largest_of(values_N, share)
    assert which_N.sum() == kept_of(len(values_N), share)
    if not which_N.all():
        assert np.abs(values_N[which_N]).min() >= np.abs(values_N[~which_N]).max()


@given(numbers_of_a_tensor, st.integers(1, 9))
def test_a_block_has_the_scale_of_its_largest(values_N: NDArray[np.float32], block: int) -> None:
    scales_B, blocks_BK = in_blocks(values_N, block, 127)
    assert blocks_BK.reshape(-1)[: len(values_N)].tolist() == values_N.tolist()
    naive = [np.abs(values_N[i : i + block]).max() for i in range(0, len(values_N), block)]
    assert scales_B * 127 == pytest.approx(naive, rel=1e-6)


def test_the_upper_half_is_right_on_average_and_leaves_what_has_no_lower_half() -> None:
    draws = np.random.default_rng(0)
    third_N = np.full(40_000, 1 / 3, np.float32)
    halves_N = to_bfloat16(third_N, draws)
    back_N = (halves_N.astype(np.uint32) << 16).view(np.float32)
    assert len(np.unique(back_N)) == 2
    assert back_N.mean(dtype=np.float64) == pytest.approx(1 / 3, rel=2e-5)
    exact_N = np.array([0.0, -1.5, np.finfo(np.float32).max], np.float32)
    again_N = (to_bfloat16(exact_N, draws).astype(np.uint32) << 16).view(np.float32)
    assert again_N[:2].tolist() == [0.0, -1.5]
    assert np.isfinite(again_N[2])
