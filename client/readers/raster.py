"""PNG and JPEG pictures, through PIL."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from client.readers.picture import BadFileError, Picture, check_fits, whole_numbers

# PIL cuts these off at 255 when it makes them grey, so their numbers are taken as they are.
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_SPACING_MM = (1.0, 1.0)
_BROKEN = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error)


def read_picture(path: Path, channels: int) -> Picture:
    """Return a picture as [C, X, Y], X to the right and Y down.

    Colour is made grey where 1 channel is asked (ITU-R 601-2 luma); grey fills 3 channels equally.

    Raises:
        BadFileError: where the file is broken or not a picture.
    """
    image = _open(path)
    if image.mode in _DEEP_MODES:
        array_HWC = np.repeat(np.asarray(image, np.float32)[..., None], channels, axis=2)
    else:
        array_HWC = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32)
        array_HWC = array_HWC.reshape(image.height, image.width, channels)
    return Picture(array_CS=np.ascontiguousarray(array_HWC.T), spacing_mm=_SPACING_MM)


def read_picture_mask(path: Path) -> Picture:
    """Return a picture of labels as [1, X, Y]; of a palette file the indices, of 1 bit 0 and 255.

    Raises:
        BadFileError: where the file is broken, not a picture, or coloured.
    """
    image = _open(path)
    array_HW = np.asarray(image.convert("L") if image.mode == "1" else image)
    if array_HW.ndim == 3:
        colours = array_HW[..., :1] if image.mode == "LA" else array_HW[..., :3]
        array_HW = colours[..., 0]
        if (colours != colours[..., :1]).any():
            raise BadFileError(
                path,
                "is a mask in colour, and a colour is not a label",
                "save the mask as a grey or palette PNG with one value a class",
            )
    labels_XY = whole_numbers(path, array_HW.T)
    return Picture(array_CS=np.ascontiguousarray(labels_XY[None]), spacing_mm=_SPACING_MM)


def _open(path: Path) -> Image.Image:
    """Return the picture, turned as its EXIF tag says: as people saw it who drew the mask."""
    try:
        with Image.open(path) as file:
            # A byte holds 8 pixels of 1 bit.
            check_fits(path, file.width * file.height // 8)
            file.load()
            return ImageOps.exif_transpose(file)
    except BadFileError:
        raise
    except Image.DecompressionBombError as error:
        raise BadFileError(
            path, "has too many pixels to be opened safely", "save it smaller"
        ) from error
    except _BROKEN as error:
        raise BadFileError(
            path,
            "is broken or not a picture (PIL cannot read it to its end)",
            "export it again from its source, or leave it out",
        ) from error
