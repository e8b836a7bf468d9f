"""What lies beside the pixels in PixelData: unused bits, bytes behind the last pixel, comments.

None of it is seen in a viewer, all of it may hold a name: old overlays lie in the unused high bits
(PS3.5, 8.1.2), and JPEG streams may have comments and the records of applications.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

_MARK = 0xFF
_COMMENT, _COMMENT_2000 = 0xFE, 0x64
_RECORDS = range(0xE0, 0xF0)
_ADOBE, _COLOUR_OF_LS = 0xEE, 0xE8
"""Application records by which colours are told; they hold numbers (ITU-T T.872; JPEG-LS)."""
_LONGEST = 16
"""Bytes of such a record, its length included."""
_SCAN, _TILE, _END = 0xDA, 0x90, 0xD9
_IN_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xff]")
"""A marker that ends coded data: bytes below 0x80 follow an 0xff there, and D0 to D7 restart it."""


def clean_pixels(found: FileDataset) -> None:
    """Take out of a data set's PixelData, in place, all that is no pixel.

    Raises:
        ValueError: a JPEG stream that cannot be gone through, bits that are not there.
    """
    syntax = found.file_meta.TransferSyntaxUID
    if "PixelData" not in found:
        return
    if not syntax.is_compressed or syntax.is_deflated:
        found.PixelData = _native(found, bool(syntax.is_little_endian))
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
        frames = int(found.get("NumberOfFrames") or 1)
        stored = list(generate_frames(found.PixelData, number_of_frames=frames))
        drop = _dropped_2000 if syntax in JPEG2000TransferSyntaxes else _dropped
        cleaned = [_even(b"".join(_kept(stream, drop))) for stream in stored]
        if cleaned != stored:
            found.PixelData = encapsulate(cleaned)
            # Tables of where the frames began say where they are no more.
            for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                if name in found:
                    del found[name]


def _native(found: Dataset, little_endian: bool) -> bytes:
    """Return native pixels, their unused bits filled as the sign is, without bytes behind them."""
    length = get_expected_length(found)
    content = bytes(found.PixelData[:length])
    allocated, stored = int(found.BitsAllocated), int(found.BitsStored)
    if stored < allocated and allocated in (8, 16, 32):
        if not stored - 1 <= int(found.HighBit) < allocated:
            raise ValueError("bits of the pixels that are not among those allocated")
        order = "<" if little_endian else ">"
        kind = "i" if int(found.PixelRepresentation) else "u"
        values = np.frombuffer(content, np.dtype(f"{order}{kind}{allocated // 8}"))
        above = allocated - 1 - int(found.HighBit)
        # Shifted to the top and back: a signed number keeps its sign, another gets zeros.
        shifted = np.left_shift(values, above)
        shifted = np.right_shift(shifted, allocated - stored)
        low = int(found.HighBit) + 1 - stored
        content = np.left_shift(shifted, low).astype(values.dtype).tobytes()
    return _even(content)


def _even(content: bytes) -> bytes:
    return content + b"\0" * (len(content) % 2)


def _dropped(marker: int, length: int) -> bool:
    if marker in (_ADOBE, _COLOUR_OF_LS):
        return length > _LONGEST
    return marker == _COMMENT or marker in _RECORDS


def _dropped_2000(marker: int, length: int) -> bool:
    return marker == _COMMENT_2000


def _kept(stream: bytes, drop: Callable[[int, int], bool]) -> Iterator[bytes]:
    """Yield the pieces of a JPEG or JPEG 2000 stream that are no comment, up to its end."""
    yield stream[:2]
    at = 2
    while at < len(stream):
        if stream[at] != _MARK or at + 2 > len(stream):
            raise ValueError("a JPEG stream has no marker where one must be")
        marker = stream[at + 1]
        if marker == _END:
            yield stream[at : at + 2]
            return
        if marker == _TILE:
            last = stream.rfind(bytes([_MARK, _END]))
            yield stream[at : last + 2 if last > at else len(stream)]
            return
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        end = at + 2 + length
        if marker == _SCAN:
            found = _IN_SCAN.search(stream, end)
            end = found.start() if found else len(stream)
        if not drop(marker, length):
            yield stream[at:end]
        at = end
