"""Names beside marks: as few of them on each other as can be."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from server.report.labels import RADIUS, SIDES, _shared, box_of, sides_of

FRAME = (0.0, 0.0, 300.0, 200.0)
POINTS = st.tuples(st.integers(60, 240), st.integers(40, 160))


@given(st.lists(POINTS, min_size=1, max_size=1))
def test_a_name_alone_stands_to_the_right(marks: list[tuple[float, float]]) -> None:
    assert sides_of(marks, ["rural"], 8, FRAME) == [SIDES[0]]


def test_a_name_at_the_edge_stays_in_the_frame() -> None:
    (side,) = sides_of([(295.0, 100.0)], ["memory-clinic"], 8, FRAME)
    assert side == SIDES[1]


def test_neighbours_do_not_lie_on_each_other() -> None:
    marks = [(100.0, 100.0), (118.0, 101.0), (104.0, 84.0), (96.0, 118.0)]
    names = ["rural", "county", "university", "emergency"]
    boxes = [
        box_of(mark, side, name, 8)
        for mark, side, name in zip(marks, sides_of(marks, names, 8, FRAME), names, strict=True)
    ]
    circles = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in marks]
    assert not any(_shared(a, b) for a, b in combinations(boxes, 2))
    assert not any(_shared(box, circle) for box in boxes for circle in circles)


@given(st.lists(POINTS, min_size=2, max_size=8))
def test_no_name_could_be_better_placed_by_itself_at_the_end(
    marks: list[tuple[float, float]],
) -> None:
    names = [f"site-{i}" for i in range(len(marks))]
    assert sides_of(marks, names, 8, FRAME) == sides_of(list(marks), list(names), 8, FRAME)
    # The first name has seen the marks alone: no other side would cover less of them.
    first, circles = marks[0], [(x - 6, y - 6, x + 6, y + 6) for x, y in marks[1:]]
    costs = [sum(_shared(box_of(first, s, names[0], 8), c) for c in circles) for s in SIDES]
    chosen = sides_of(marks, names, 8, FRAME)[0]
    assert costs[SIDES.index(chosen)] == min(costs)
