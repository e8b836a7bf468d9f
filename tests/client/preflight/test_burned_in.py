import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from client.preflight.burned_in import LETTERS, letters_in


def written(
    text: str, ink: int = 250, paper: int = 20, size: int = 18, width: int = 400
) -> np.ndarray:
    """[1, X, Y]: a noisy picture with a text in it."""
    noise = np.random.default_rng(0).normal(paper, 4, (120, width))
    picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text((20, 20), text, fill=ink, font=font)
    return np.asarray(picture, np.float32).T[None]


@pytest.mark.parametrize(("ink", "paper"), [(250, 20), (10, 230)])
@pytest.mark.parametrize("size", [14, 24, 72])
def test_a_name_is_seen_bright_or_dark(ink: int, paper: int, size: int) -> None:
    picture = written("ZZZTEST MARY 04041985", ink, paper, size, width=1200)
    assert letters_in(picture) >= LETTERS


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_name_is_seen_whichever_way_it_runs(quarters: int) -> None:
    upright = written("Zztest Mary 04041985")
    assert letters_in(np.rot90(upright, quarters, axes=(1, 2))) >= LETTERS


def test_a_name_in_one_colour_is_seen_beside_white() -> None:
    text = written("ZZZTEST MARY 04041985", paper=0)
    colour = np.zeros((3, *text.shape[1:]), np.float32)
    colour[:, -60:, -60:] = 255
    for channel in range(3):
        coloured = colour.copy()
        coloured[channel] = np.maximum(coloured[channel], text[0])
        assert letters_in(coloured) >= LETTERS


def test_a_name_in_a_picture_that_is_black_but_for_it_is_seen() -> None:
    picture = np.zeros((1, 1600, 1200), np.float32)
    picture[:, :400, :120] = np.where(written("Z. MARY 1985", paper=0) > 100, 250, 0)
    assert (picture > 0).mean() < 1e-3
    assert letters_in(picture) >= LETTERS


def test_noise_and_a_marker_of_one_letter_are_no_text() -> None:
    assert letters_in(written("")) < LETTERS
    assert letters_in(written("R")) < LETTERS
    assert letters_in(np.zeros((1, 50, 50), np.float32)) == 0


def test_a_grid_of_dots_of_other_heights_is_no_text() -> None:
    picture = np.zeros((1, 200, 200), np.float32)
    for index, x in enumerate(range(10, 190, 12)):
        picture[0, x : x + 3, 100 - 2 * (index % 7) : 100 + 9 * (index % 3)] = 1
    assert letters_in(picture) < LETTERS
