from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.evaluation.plane import places_of

PLANE = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=3, max_size=7, unique=True)
Distances = dict[str, dict[str, float]]


def between(points: list[tuple[float, float]]) -> Distances:
    of: Distances = {f"site-{i}": {} for i in range(len(points))}
    for (a, p), (b, q) in combinations(zip(of, points, strict=True), 2):
        of[a][b] = of[b][a] = float(np.hypot(p[0] - q[0], p[1] - q[1]))
    return of


@given(PLANE)
def test_sites_of_a_plane_are_placed_as_far_apart_as_they_are(
    points: list[tuple[float, float]],
) -> None:
    distances = between(points)
    found = places_of(distances)
    for a, b in combinations(found, 2):
        placed = np.hypot(found[a]["x"] - found[b]["x"], found[a]["y"] - found[b]["y"])
        assert placed == pytest.approx(distances[a][b], abs=1e-6)


@given(PLANE)
def test_the_site_furthest_out_is_to_the_right_and_above(points: list[tuple[float, float]]) -> None:
    found = places_of(between(points))
    for axis in ("x", "y"):
        along = [of[axis] for of in found.values()]
        assert max(along) >= -min(along) - 1e-9


def test_two_sites_have_no_plane() -> None:
    assert places_of(between([(0.0, 0.0), (0.3, 0.4)])) == {}
