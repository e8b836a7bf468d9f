import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from client.preflight.burned_in import LETTERS, letters_in


def written(text: str, ink: int = 250, paper: int = 20, size: int = 18) -> np.ndarray:
    """[X, Y]: a noisy picture with a text in it."""
    noise = np.random.default_rng(0).normal(paper, 4, (120, 400))
    picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text((20, 40), text, fill=ink, font=font)
    return np.asarray(picture, np.float32).T


@pytest.mark.parametrize(("ink", "paper"), [(250, 20), (10, 230)])
@pytest.mark.parametrize("size", [14, 24])
def test_a_name_is_seen_bright_or_dark(ink: int, paper: int, size: int) -> None:
    assert letters_in(written("ZZZTEST MARY 04041985", ink, paper, size)) >= LETTERS


def test_noise_and_a_marker_of_one_letter_are_no_text() -> None:
    assert letters_in(written("")) < LETTERS
    assert letters_in(written("R")) < LETTERS
    assert letters_in(np.zeros((50, 50), np.float32)) == 0


def test_a_grid_of_dots_of_other_heights_is_no_text() -> None:
    picture = np.zeros((200, 200), np.float32)
    for index, x in enumerate(range(10, 190, 12)):
        picture[x : x + 3, 100 - 2 * (index % 7) : 100 + 9 * (index % 3)] = 1
    assert letters_in(picture) < LETTERS
