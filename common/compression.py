"""Updates as differences in few bits: blocks of small numbers, the largest alone, one checksum.

A difference is coded a tensor at a time: which numbers travel (all, or the largest), then these
with few bits, rounded up or down by chance so that the mean is right (Alistarh et al., QSGD,
NeurIPS 2017, Sec. 3.1), then all together by Zstandard (RFC 8878). What is left out of the largest
numbers alone is added to the next difference (Stich, Cordonnier and Jaggi, NeurIPS 2018, Alg. 1).
With privacy it is post-processing of an update that is private already.

Legend of shapes: N numbers of a tensor, M of them that travel, B blocks.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from common.bodies import MessageError
from common.compression_config import CodecConfig
from common.few_bits import (
    Bytes,
    Floats,
    blocks_of_numbers,
    in_blocks,
    kept_of,
    largest_of,
    paired,
    to_bfloat16,
    unpaired,
)
from common.framed_files import Layout, LazyArrays, layout_of
from common.framing import Arrays, arrays_in, framed

CODED = "coded"
"""The name of the one array that travels in the place of all tensors."""
MOST_LEFT = 0.5
"""Of the norm of a difference, what was left out before may add to it."""
MAGIC, DIGEST_BYTES = b"WRC1", 32
_HEAD = len(MAGIC) + DIGEST_BYTES
HEADER_BYTES_A_TENSOR = 4096
"""More than the names and places of a tensor's parts take."""
_LARGEST = {"int8": 127, "int4": 7}
WHOLE = ("running_mean", "running_var")
"""Ends of names of few numbers that travel in full: a variance that is rounded may fall below 0."""
_NUMBERS, _SCALES, _WHICH, _RAW = "n/", "s/", "w/", "r/"


class CodingError(MessageError):
    """Bytes that are no difference of this study's model; nothing of them was used."""


def coded(differences: Arrays, codec: CodecConfig, draws: np.random.Generator) -> Bytes:
    """Return the differences as bytes, [n] uint8.

    Statistics of norms, and what is not float32, travel as they are. draws: what rounding is drawn
    from.
    """
    parts: dict[str, NDArray[np.generic]] = {}
    for name in sorted(differences):
        difference = differences[name]
        if _is_coded(name, (difference.shape, difference.dtype)):
            parts |= _coded_tensor(name, difference.reshape(-1), codec, draws)
        else:
            parts[_RAW + name] = difference
    return _sealed(parts)


def _sealed(parts: Arrays) -> Bytes:
    ordered = dict(sorted(parts.items()))
    payload = zstandard.ZstdCompressor(level=3).compress(framed(ordered))
    whole = MAGIC + hashlib.sha256(payload).digest() + payload
    return np.frombuffer(whole, np.uint8)


class Differences(LazyArrays):
    """The differences in coded bytes; each tensor is made when it is asked for, and not kept."""

    def __init__(self, whole: Bytes, layout: Mapping[str, Layout], codec: CodecConfig) -> None:
        """layout: of the tensors that there must be.

        Raises:
            CodingError: the bytes are cut off or changed, or are not of these tensors.
        """
        self._layout, self._codec = dict(layout), codec
        payload = _payload(whole, self._layout)
        try:
            self._parts = arrays_in(payload)
        except ValueError as error:
            raise CodingError("the coded weights hold no tensors; nothing was used") from error
        _check_parts(self._parts, self._layout, codec)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        shape, dtype = self._layout[name]
        if not _is_coded(name, (shape, dtype)):
            return self._parts[_RAW + name]
        return _decoded_tensor(self._parts, name, math.prod(shape), self._codec).reshape(shape)

    def layout(self) -> dict[str, Layout]:
        """Return the shape and the dtype of each tensor."""
        return self._layout

    def sealed_anew(self) -> Bytes:
        """Return bytes that hold these differences and nothing else, made here from the numbers.

        Raises:
            CodingError: a number that coding never makes, so that it tells something else.
        """
        for name, (shape, dtype) in self._layout.items():
            if _is_coded(name, (shape, dtype)):
                _check_plain(self._parts, name, math.prod(shape), self._codec)
        return _sealed(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)


class Moved(LazyArrays):
    """A model and differences from it, added when they are asked for."""

    def __init__(self, base: Arrays, differences: Differences) -> None:
        self._base, self._differences = base, differences

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        base: Any = self._base[name]
        moved = self._differences[name]
        # Counters and statistics of other kinds travel whole.
        return base + moved if base.dtype == np.float32 else moved

    def layout(self) -> dict[str, Layout]:
        """Return the shape and the dtype of each tensor."""
        return self._differences.layout()

    def __iter__(self) -> Iterator[str]:
        return iter(self._differences)

    def __len__(self) -> int:
        return len(self._differences)


def moved_by(base: Arrays, arrived: Arrays, codec: CodecConfig) -> Moved:
    """Return the model that arrived as a coded difference from the base.

    Raises:
        CodingError: what arrived is no such thing.
    """
    whole = arrived.get(CODED)
    if len(arrived) != 1 or whole is None or whole.dtype != np.uint8 or whole.ndim != 1:
        raise CodingError("the weights are not coded as the study says")
    return Moved(base, Differences(np.asarray(whole, np.uint8), layout_of(base), codec))


def differences_of(base: Arrays, model: Arrays, left: Arrays) -> dict[str, NDArray[np.generic]]:
    """Return model - base and what was left out before, of float32; of other kinds the model.

    left: by name; empty where nothing was left out. It counts for half of the new difference at
    most (MOST_LEFT): a round that goes far makes up for much of it anyway, and the sum of both
    would go too far, each time further.
    """
    apart: dict[str, Any] = {
        name: np.subtract(array, base[name])
        for name, array in model.items()
        if array.dtype == np.float32
    }
    waiting: dict[str, Any] = dict(left)
    most, norm = MOST_LEFT * _norm(apart.values()), _norm(waiting.values())
    share = np.float32(1.0 if norm <= most else most / norm)
    whole: dict[str, NDArray[np.generic]] = {
        name: apart[name] + share * waiting.get(name, np.float32(0)) for name in apart
    }
    return {name: whole.get(name, array) for name, array in model.items()}


def _norm(arrays: Iterable[Any]) -> float:
    return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays))


def left_out(differences: Arrays, whole: Bytes, codec: CodecConfig) -> dict[str, Floats]:
    """Return what the coding left out of the differences, by name; empty where it is unbiased."""
    if codec.kept is None:
        return {}
    told = Differences(whole, layout_of(differences), codec)
    return {
        name: np.asarray(difference - told[name], dtype=np.float32)  # type: ignore[operator]
        for name, difference in differences.items()
        if difference.dtype == np.float32
    }


def _is_coded(name: str, layout: Layout) -> bool:
    shape, dtype = layout
    return dtype == np.float32 and math.prod(shape) > 0 and not name.endswith(WHOLE)


def _coded_tensor(
    name: str, values_N: NDArray[np.generic], codec: CodecConfig, draws: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    parts: dict[str, NDArray[np.generic]] = {}
    if codec.kept is not None:
        which_N = largest_of(values_N, codec.kept)
        parts[_WHICH + name] = np.packbits(which_N)
        values_N = values_N[which_N]
    if codec.numbers == "float32":
        return {**parts, _NUMBERS + name: values_N}
    if codec.numbers == "bfloat16":
        return {**parts, _NUMBERS + name: to_bfloat16(values_N, draws)}
    largest = _LARGEST[codec.numbers]
    scales_B, blocks_BK = in_blocks(values_N, codec.block, largest)
    scaled_BK = np.divide(
        blocks_BK, scales_B[:, None], out=np.zeros_like(blocks_BK), where=scales_B[:, None] > 0
    )
    drawn_BK = draws.random(scaled_BK.shape, dtype=np.float32)
    rounded_M = np.floor(scaled_BK + drawn_BK).clip(-largest, largest).reshape(-1)[: len(values_N)]
    small_M = rounded_M.astype(np.int8)
    numbers = small_M if codec.numbers == "int8" else paired(small_M)
    return {**parts, _SCALES + name: scales_B, _NUMBERS + name: numbers}


def _decoded_tensor(parts: Arrays, name: str, count: int, codec: CodecConfig) -> Floats:
    which = parts.get(_WHICH + name)
    which_N = None if which is None else np.unpackbits(which, count=count).astype(bool)  # type: ignore[arg-type]
    travelled = count if which_N is None else int(which_N.sum())
    values_M = _numbers(parts, name, travelled, codec)
    if which_N is None:
        return values_M
    values_N = np.zeros(count, np.float32)
    values_N[which_N] = values_M
    return values_N


def _numbers(parts: Arrays, name: str, count: int, codec: CodecConfig) -> Floats:
    stored = parts[_NUMBERS + name]
    if codec.numbers == "float32":
        return np.asarray(stored, np.float32)
    if codec.numbers == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    small_M = stored if codec.numbers == "int8" else unpaired(stored, count)  # type: ignore[arg-type]
    scales_B = np.asarray(parts[_SCALES + name], np.float32)
    return small_M.astype(np.float32) * np.repeat(scales_B, codec.block)[:count]


def _payload(whole: Bytes, layout: Mapping[str, Layout]) -> bytes:
    # No more than the model's own size is ever taken in, or unpacked.
    most = sum(math.prod(shape) * dtype.itemsize * 2 for shape, dtype in layout.values())
    most += HEADER_BYTES_A_TENSOR * (1 + len(layout))
    if whole.nbytes > most:
        raise CodingError("the coded weights are longer than the model; nothing was used")
    text = whole.tobytes()
    if text[: len(MAGIC)] != MAGIC or len(text) <= _HEAD:
        raise CodingError("the coded weights are cut off or of another version")
    payload = text[_HEAD:]
    if hashlib.sha256(payload).digest() != text[len(MAGIC) : _HEAD]:
        raise CodingError("the coded weights are not what their checksum says; nothing was used")
    try:
        # What the frame says of itself is what is set aside for it.
        if 0 <= zstandard.frame_content_size(payload) <= most:
            return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError:
        pass
    raise CodingError("the coded weights cannot be unpacked; nothing was used")


def _check_parts(parts: Arrays, layout: Mapping[str, Layout], codec: CodecConfig) -> None:
    expected: dict[str, Layout] = {}
    for name, (shape, dtype) in layout.items():
        if _is_coded(name, (shape, dtype)):
            expected |= _parts_of(name, math.prod(shape), codec)
        else:
            expected[_RAW + name] = (shape, dtype)
    if layout_of(parts) != expected:
        raise CodingError("the coded weights are of other tensors than the model's")
    for name, (shape, _) in layout.items():
        if codec.kept is not None and _WHICH + name in parts:
            _check_which(parts[_WHICH + name], math.prod(shape), codec.kept)


def _parts_of(name: str, count: int, codec: CodecConfig) -> dict[str, Layout]:
    """Return what parts a float32 tensor of so many numbers has."""
    parts: dict[str, Layout] = {}
    if codec.kept is not None:
        parts[_WHICH + name] = ((-(-count // 8),), np.dtype(np.uint8))
        count = kept_of(count, codec.kept)
    if codec.numbers in _LARGEST:
        parts[_SCALES + name] = ((blocks_of_numbers(count, codec.block),), np.dtype(np.float32))
    length = -(-count // 2) if codec.numbers == "int4" else count
    return {**parts, _NUMBERS + name: ((length,), _DTYPES[codec.numbers])}


def _check_plain(parts: Arrays, name: str, count: int, codec: CodecConfig) -> None:
    """Refuse a scale that is none, numbers beyond the largest or under a scale of 0, and padding.

    count: numbers of the tensor.
    """
    if codec.numbers not in _LARGEST:
        return
    count = count if codec.kept is None else kept_of(count, codec.kept)
    scales_B: Any = parts[_SCALES + name]
    stored: Any = parts[_NUMBERS + name]
    small = stored if codec.numbers == "int8" else unpaired(stored, 2 * len(stored))
    hidden = small[:count][np.repeat(scales_B == 0, codec.block)[:count]]
    sound = bool((np.isfinite(scales_B) & (scales_B >= 0)).all())
    sound = sound and bool((np.abs(small.astype(np.int16)) <= _LARGEST[codec.numbers]).all())
    if not sound or hidden.any() or small[count:].any():
        raise CodingError("the coded weights have numbers that coding never makes")


_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint16),
    "int8": np.dtype(np.int8),
    "int4": np.dtype(np.uint8),
}


def _check_which(which: NDArray[np.generic], count: int, share: float) -> None:
    bits = np.unpackbits(which)  # type: ignore[arg-type]
    if int(bits.sum()) != kept_of(count, share) or bits[count:].any():
        raise CodingError("the coded weights have other numbers than the study's share of them")
