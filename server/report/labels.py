"""Where names stand beside their marks, so that none lies on another or on a mark."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, AWAY = 0.62, 1.2, 9.0
"""Of a letter over the size of the type; of a line; from a mark's middle to its name, in points."""
RADIUS = 6.0
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class Side:
    """Of a mark."""

    right: float
    """How far the name is moved to the right of the mark's middle, in points."""
    up: float
    horizontal: str
    vertical: str


SIDES = (
    Side(AWAY, 0.0, "left", "center"),
    Side(-AWAY, 0.0, "right", "center"),
    Side(0.0, AWAY, "center", "bottom"),
    Side(0.0, -AWAY, "center", "top"),
)


def sides_of(
    marks: Sequence[tuple[float, float]], names: Sequence[str], size: float, frame: Box
) -> list[Side]:
    """Return the side of each mark on which its name covers least.

    marks: their middles, in points. size: of the type, in points. frame: within which names lie.
    One name after the other finds its place, so that the same marks give the same sides.
    """
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in marks]
    chosen = []
    for place, (mark, name) in enumerate(zip(marks, names, strict=True)):
        others = taken[:place] + taken[place + 1 :]
        boxes = [box_of(mark, side, name, size) for side in SIDES]
        costs = [
            sum(_shared(box, other) for other in others) + _outside(box, frame) for box in boxes
        ]
        best = costs.index(min(costs))
        chosen.append(SIDES[best])
        taken.append(boxes[best])
    return chosen


def box_of(mark: tuple[float, float], side: Side, name: str, size: float) -> Box:
    """Return what a name covers."""
    width, height = WIDTH * size * len(name), HEIGHT * size
    x, y = mark[0] + side.right, mark[1] + side.up
    left = x - {"left": 0.0, "center": width / 2, "right": width}[side.horizontal]
    bottom = y - {"bottom": 0.0, "center": height / 2, "top": height}[side.vertical]
    return left, bottom, left + width, bottom + height


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box, frame: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, frame)
