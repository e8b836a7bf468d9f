from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from common.framed_files import BLOCK
from server.robust import by_coordinate, krum, median, nearest, trimmed_mean

STACKS = hnp.arrays(
    np.float64, st.tuples(st.integers(5, 9), st.integers(1, 4)), elements=st.floats(-1e6, 1e6)
)
in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def updates_of(stack: NDArray[np.float64]) -> list[dict[str, NDArray[Any]]]:
    return [
        {"w": row.astype(np.float32), "b": np.array(row[0], np.float32), "n": np.array(i)}
        for i, row in enumerate(stack)
    ]


def naive_median(values: list[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@given(STACKS)
def test_the_median_is_that_of_each_coordinate(stack: NDArray[np.float64]) -> None:
    assert median(stack) == pytest.approx([naive_median(list(c)) for c in stack.T])


@given(STACKS, st.integers(0, 2))
def test_a_trimmed_mean_leaves_out_both_ends(stack: NDArray[np.float64], faulty: int) -> None:
    naive = [np.mean(sorted(column)[faulty : len(column) - faulty]) for column in stack.T.tolist()]
    assert trimmed_mean(stack, faulty) == pytest.approx(naive)
    if faulty == 0:
        assert trimmed_mean(stack, 0) == pytest.approx(stack.mean(axis=0))


@pytest.mark.parametrize("rule", [median, partial(trimmed_mean, faulty=2)])
@given(
    stack=STACKS, places=st.sets(st.integers(0, 4), max_size=2), far=st.sampled_from([1e9, -1e9])
)
def test_two_of_five_cannot_leave_the_honest_values(
    rule: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    stack: NDArray[np.float64],
    places: set[int],
    far: float,
) -> None:
    honest = np.delete(stack, sorted(places), axis=0)
    spoilt = stack.copy()
    spoilt[sorted(places)] = far
    found = rule(spoilt)
    slack = 1e-9 * (1 + abs(honest).max())
    assert (found >= honest.min(axis=0) - slack).all()
    assert (found <= honest.max(axis=0) + slack).all()


@given(STACKS, st.integers(0, 1))
def test_krum_is_the_naive_choice(stack: NDArray[np.float64], faulty: int) -> None:
    squared = np.array([[float(((a - b) ** 2).sum()) for b in stack] for a in stack])
    sums = [
        sum(sorted(np.delete(row, i))[: len(stack) - faulty - 2]) for i, row in enumerate(squared)
    ]
    assert sums[krum(squared, faulty)] == pytest.approx(min(sums))


def test_krum_does_not_choose_a_far_update_whatever_its_size(tmp_path: Path) -> None:
    stack = np.array([[1e30, 1e30], [1.0, 2.0], [1.1, 2.0], [0.9, 2.0], [1.0, 2.1]])
    found = nearest(updates_of(stack), 1, 5, tmp_path)
    assert found is not None
    assert found["w"].tolist() == pytest.approx([1.0, 2.0])
    # Its numbers are one site's, its counters all sites', as in the mean.
    assert found["n"].item() == 4


@in_a_folder
@given(stack=STACKS)
def test_from_files_it_is_the_same_and_nothing_is_left(
    tmp_path: Path, stack: NDArray[np.float64]
) -> None:
    stack = stack.astype(np.float32).astype(np.float64)
    found = by_coordinate(iter(updates_of(stack)), median, 5, tmp_path)
    assert found is not None
    assert found["w"].numpy() == pytest.approx(median(stack))
    assert found["b"].item() == pytest.approx(median(stack[:, :1])[0])
    assert found["n"].item() == len(stack) - 1
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_of_several_blocks_is_whole(tmp_path: Path) -> None:
    numbers = np.arange(BLOCK + 5, dtype=np.float32)
    updates = [{"w": numbers + more} for more in (0.0, 8.0, 2.0)]
    found = by_coordinate(updates, median, 3, tmp_path)
    assert found is not None
    assert (found["w"].numpy() == numbers + 2.0).all()
    chosen = nearest([*updates, *updates[:2]], 1, 5, tmp_path)
    assert chosen is not None
    assert (chosen["w"].numpy() == numbers).all()


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_updates_make_nothing(tmp_path: Path, count: int) -> None:
    updates = updates_of(np.ones((count, 2)))
    assert by_coordinate(updates, median, 5, tmp_path) is None
    assert nearest(updates, 1, 5, tmp_path) is None
