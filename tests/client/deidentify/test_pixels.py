from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from client.deidentify.pixels import clean_pixels
from tests.dicoms import stored_volume, write_series

SECRET = b"ZEBRA"


def slice_of(folder: Path, pixels: np.ndarray) -> FileDataset:
    return dcmread(write_series(folder, pixels[None])[0])


@given(
    stored=st.integers(1, 16),
    lower=st.integers(0, 8),
    signed=st.booleans(),
    values=st.lists(st.integers(0, 2**16 - 1), min_size=4, max_size=4),
)
def test_bits_that_no_pixel_uses_hold_nothing_and_the_pixels_stay(
    tmp_path_factory: pytest.TempPathFactory,
    stored: int,
    lower: int,
    signed: bool,
    values: list[int],
) -> None:
    high = min(stored - 1 + lower, 15)
    found = slice_of(tmp_path_factory.mktemp("s"), np.array([values], np.uint16))
    found.BitsStored, found.HighBit, found.PixelRepresentation = stored, high, int(signed)
    clean_pixels(found)
    for before, after in zip(
        values, np.frombuffer(found.PixelData, np.uint16).tolist(), strict=True
    ):
        low = high + 1 - stored
        mask = (2**stored - 1) << low
        assert after & mask == before & mask
        negative = signed and before >> high & 1
        above = 0xFFFF & ~(2 ** (high + 1) - 1)
        assert after & ~mask == (above if negative else 0)


def test_bytes_behind_the_last_pixel_are_cut_off(tmp_path: Path) -> None:
    found = slice_of(tmp_path, stored_volume()[1])
    pixels = found.PixelData
    found.PixelData = pixels + SECRET + b"!"
    clean_pixels(found)
    assert found.PixelData == pixels


def with_comments(stream: bytes, *markers: int) -> bytes:
    """The stream with a segment for each marker behind its first one."""
    segment = (len(SECRET) + 12).to_bytes(2, "big") + SECRET + b" " * 10
    return stream[:2] + b"".join(bytes([255, marker]) + segment for marker in markers) + stream[2:]


@pytest.mark.parametrize(
    ("syntax", "markers"),
    [(JPEGLSLossless, (0xFE, 0xE1, 0xED, 0xEE)), (JPEG2000Lossless, ())],
)
def test_a_compressed_image_keeps_its_pixels_and_no_comment(
    tmp_path: Path, syntax: str, markers: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    found = slice_of(tmp_path, pixels)
    found.compress(syntax, generate_instance_uid=False)
    (stream,) = generate_frames(found.PixelData, number_of_frames=1)
    if syntax == JPEG2000Lossless:
        # The first segment must be the size of the image; a comment comes behind it.
        size = 4 + int.from_bytes(stream[4:6], "big")
        stream = stream[:size] + with_comments(stream[size - 2 :], 0x64)[2:]
    commented = with_comments(stream, *markers) + SECRET
    found.PixelData = encapsulate([commented])
    assert SECRET in found.PixelData
    clean_pixels(found)
    assert SECRET not in found.PixelData
    np.testing.assert_array_equal(found.pixel_array, pixels)
    once = found.PixelData
    clean_pixels(found)
    assert found.PixelData == once


def test_a_stream_that_cannot_be_gone_through_is_refused(tmp_path: Path) -> None:
    found = slice_of(tmp_path, stored_volume()[1])
    found.compress(JPEGLSLossless, generate_instance_uid=False)
    found.PixelData = encapsulate([b"\xff\xd8" + SECRET * 3])
    with pytest.raises(ValueError, match="no marker"):
        clean_pixels(found)
