import base64
import io
import re
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.pictures import Example, Picture, draw


def square(size: int, low: int, high: int) -> NDArray[np.int64]:
    mask = np.zeros((size, size), np.int64)
    mask[low:high, low:high] = 1
    return mask


def example(image: NDArray[np.float64], mask: NDArray[np.int64] | None) -> Example:
    return Example("st-a", "slice 3", image, mask, None)


def pixels(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.pixels))))


def corners(path: str) -> NDArray[np.float64]:
    """Return the points of an outline, in pixels of the picture."""
    points: list[NDArray[np.float64]] = []
    for kind, x, y in re.findall(r"([Ml])(-?\d+) (-?\d+)", path):
        step = np.array([int(x), int(y)], np.float64)
        points.append(step if kind == "M" else points[-1] + step)
    return np.array(points) / 10


def test_first_axis_runs_to_the_right() -> None:
    image = np.zeros((6, 4))
    image[5, 0] = 1.0
    [picture] = draw([example(image, None)])
    shown = pixels(picture)
    assert shown.shape == (4, 6)
    assert shown[0, 5] == shown.max()
    assert (picture.width, picture.height) == (60, 40)


@pytest.mark.parametrize(("low", "high"), [(2, 6), (0, 8)])
def test_outline_is_the_border_of_the_region(low: int, high: int) -> None:
    [picture] = draw([example(np.zeros((8, 8)), square(8, low, high))])
    points = corners(picture.truth)
    assert points.min() == low
    assert points.max() == high


def test_two_touching_labels_have_a_border_between_them() -> None:
    mask = square(8, 1, 7)
    mask[4:] *= 2
    [picture] = draw([example(np.zeros((8, 8)), mask)])
    assert picture.truth.count("M") == 2
    assert 4 in corners(picture.truth)[:, 0]


def test_outline_follows_an_image_that_is_shrunk() -> None:
    [picture] = draw([example(np.zeros((1024, 1024)), square(1024, 256, 768))])
    assert pixels(picture).shape == (256, 256)
    points = corners(picture.truth)
    assert (points.min(), points.max()) == (64, 192)


def test_region_too_thin_for_a_shrunk_picture_has_no_outline() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [picture] = draw([example(np.zeros((1024, 1024)), square(1024, 500, 501))])
    assert picture.truth == ""


@pytest.mark.parametrize("count", [1, 12, 60])
def test_all_pixels_together_stay_under_300_kilobytes(count: int) -> None:
    noise = np.random.default_rng(0).uniform(size=(300, 300))
    assert sum(len(p.pixels) for p in draw([example(noise, None)] * count)) < 300_000


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_image_without_contrast_is_grey(value: float) -> None:
    assert set(pixels(draw([example(np.full((5, 5), value), None)])[0]).ravel()) == {128}


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \(4, 4\).*shape \(5, 5\)"):
        draw([example(np.zeros((5, 5)), square(4, 0, 2))])
    with pytest.raises(ValueError, match="give one slice"):
        draw([example(np.zeros((5, 5, 5)), None)])
