from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.readers import BadFileError, read_image, read_mask


def test_the_first_axis_runs_to_the_right_and_the_second_down(tmp_path: Path) -> None:
    image = Image.new("L", (7, 4))
    image.putpixel((5, 1), 200)
    image.save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png", 1)
    assert picture.array_CS.shape == (1, 7, 4)
    assert np.argwhere(picture.array_CS[0] == 200).tolist() == [[5, 1]]
    assert picture.spacing_mm == (1.0, 1.0)
    assert picture.affine is None


def test_colour_keeps_its_order_and_grey_is_its_luma(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (200, 100, 50))
    image.putpixel((0, 0), (0, 0, 0))
    image.save(tmp_path / "a.png")
    colour, grey = (read_image(tmp_path / "a.png", channels).array_CS for channels in (3, 1))
    assert colour[:, 1, 1].tolist() == [200, 100, 50]
    assert grey[0, 1, 1] == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_channels_asked(tmp_path: Path, mode: str, channels: int) -> None:
    image = Image.new("L", (5, 4), 255)
    image.putpixel((2, 2), 0)
    image.convert(mode).save(tmp_path / "a.png")
    array_CS = read_image(tmp_path / "a.png", channels).array_CS
    assert array_CS.shape == (channels, 5, 4)
    assert array_CS.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_not_cut_off_at_255(tmp_path: Path, channels: int) -> None:
    values = np.array([[0, 300], [4000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    array_CS = read_image(tmp_path / "a.png", channels).array_CS
    for channel in array_CS:
        np.testing.assert_array_equal(channel.T, values)


def test_a_picture_is_turned_as_its_exif_tag_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:, 16:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    array_CS = read_image(tmp_path / "a.jpg", 1).array_CS
    assert array_CS.shape == (1, 16, 32)
    assert array_CS[0, :, :16].max() < 10
    assert array_CS[0, :, 16:].min() > 245


def test_one_bit_and_eight_bit_masks_read_the_same(tmp_path: Path) -> None:
    pixels = np.zeros((6, 5), np.uint8)
    pixels[1, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "8.png")
    Image.fromarray(pixels).convert("1").save(tmp_path / "1.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "rgb.png")
    Image.fromarray(pixels).convert("LA").save(tmp_path / "la.png")
    for name in ("8.png", "1.png", "rgb.png", "la.png"):
        mask = read_mask(tmp_path / name).array_CS
        assert mask.dtype == np.int64
        np.testing.assert_array_equal(mask[0], pixels.T)


def test_a_palette_mask_holds_its_indices(tmp_path: Path) -> None:
    image = Image.new("P", (3, 3))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.putpixel((0, 2), 2)
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").array_CS[0, 0, 2] == 2


def test_a_coloured_mask_is_bad(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3), (255, 0, 0)).save(tmp_path / "m.png")
    with pytest.raises(BadFileError, match="mask in colour"):
        read_mask(tmp_path / "m.png")


def test_a_bomb_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadFileError, match="too many pixels"):
        read_image(tmp_path / "a.png", 1)


def test_real_retina_masks_are_0_and_255(shared_data: Path) -> None:
    for name in ("CHASE_DB1/masks/Image_01L.png", "HRF/masks/01_h.png"):
        mask = read_mask(shared_data / "retina_vessels" / name).array_CS
        assert np.unique(mask).tolist() == [0, 255]
