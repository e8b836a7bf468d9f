from hypothesis import given
from hypothesis import strategies as st

from common.series import Series, thinned

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


@given(VALUES, st.integers(4, 50))
def test_thinned_points_are_of_the_series_in_order_and_no_more_than_asked(
    values: list[float], most: int
) -> None:
    rounds = list(range(1, len(values) + 1))
    points = thinned(rounds, values, most)
    assert len(points) <= max(most, 0)
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert all(values[x - 1] == y for x, y in points)


@given(VALUES, st.integers(4, 50))
def test_thinning_keeps_both_ends_and_the_extremes(values: list[float], most: int) -> None:
    rounds = list(range(1, len(values) + 1))
    points = thinned(rounds, values, most)
    assert (points[0], points[-1]) == ((1, values[0]), (len(values), values[-1]))
    told = [y for _, y in points]
    assert (min(told), max(told)) == (min(values), max(values))


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), max_size=60))
def test_a_series_is_a_dictionary_by_round_in_order(told: list[tuple[int, float]]) -> None:
    series = Series()
    for round_, value in told:
        series.put(round_, value)
    assert series.points(10**6) == sorted(dict(told).items())
    assert len(series) == len(dict(told))
