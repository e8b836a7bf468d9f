"""The values of a DICOM image: decoded, rescaled, white on black, grey or in colour."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from client.readers.dicom_files import refusing
from client.readers.dicom_frames import frame_scales
from client.readers.picture import BadFileError, check_voxels

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601-2), as PIL has them."""
_MEASURED = ("CT", "PT")
"""Modalities whose numbers are a quantity, whatever RescaleType says: HU, Bq/ml."""
_NO_UNIT = ("", "US")
"""Of RescaleType: none, and unspecified (PS3.3, C.11.1.1.2)."""


def decoded(path: Path, header: Dataset, channels: int) -> NDArray[np.float32]:
    """Return a file's pictures as [F, C, R, K], F frames of R rows and K columns.

    A modality LUT or the rescale slope and intercept of the data set are applied, and those of
    single frames. MONOCHROME1, where high is dark, is turned round within the range of the stored
    bits, unless the numbers are a quantity: that is how they are shown, not what they are. Colour
    is made grey where 1 channel is asked, grey fills 3 channels equally.

    Raises:
        BadFileError: no pixels, too many, a codec that is not installed, broken pixels.
    """
    frames = int(header.get("NumberOfFrames") or 1)
    grey = int(header.get("SamplesPerPixel", 1)) == 1
    stored = _stored(path, header, frames)
    with refusing(path, "has pixels that do not fit its header"):
        if header.PhotometricInterpretation == "PALETTE COLOR":
            stored, grey = apply_color_lut(stored, header), False
        if not grey:
            colour_FCRK = np.moveaxis(stored.reshape(frames, *stored.shape[-3:]), -1, 1)
            return _with_channels(colour_FCRK[:, :3].astype(np.float32), channels)
        values = apply_modality_lut(stored, header)
        if header.PhotometricInterpretation == "MONOCHROME1" and not _is_quantity(header):
            values = _turned_round(values, header)
        grey_FCRK = values.reshape(frames, 1, *values.shape[-2:]).astype(np.float32)
    return _with_channels(frame_scales(path, header, grey_FCRK), channels)


def _stored(path: Path, header: Dataset, frames: int) -> NDArray[np.generic]:
    with refusing(path, "holds no image that can be understood"):
        samples = int(header.get("SamplesPerPixel", 1))
        voxels = frames * int(header.Rows) * int(header.Columns) * samples
        syntax = header.file_meta.TransferSyntaxUID
    check_voxels(path, voxels)
    if not _has_codec(syntax):
        raise BadFileError(
            path,
            f"is compressed as {syntax.name} ({syntax}), and no codec for it is installed",
            "pip install 'wardround[clinical]', or export it uncompressed",
        )
    with refusing(path, f"has pixels that cannot be decoded from {syntax.name}"):
        return pixel_array(header)


def _has_codec(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except RuntimeError:
        # pydicom knows none, installed or not.
        return False


def _is_quantity(header: Dataset) -> bool:
    unit = header.get("RescaleType") or ""
    return header.get("Modality") in _MEASURED or unit not in _NO_UNIT


def _turned_round(values: NDArray[np.generic], header: Dataset) -> NDArray[np.generic]:
    bits, signed = int(header.BitsStored), int(header.get("PixelRepresentation", 0))
    low = -(2 ** (bits - 1)) if signed else 0
    ends = apply_modality_lut(np.array([low, low + 2**bits - 1]), header)
    turned: NDArray[np.generic] = ends.sum() - values
    return turned


def _with_channels(array_FCRK: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    if array_FCRK.shape[1] == channels:
        return array_FCRK
    if channels == 1:
        return np.tensordot(np.array(LUMA, np.float32), array_FCRK, axes=(0, 1))[:, None]
    return np.repeat(array_FCRK, channels, axis=1)
