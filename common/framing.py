"""Weights as safetensors in pieces, without torch and without a second copy of them.

The format is that of safetensors (https://github.com/huggingface/safetensors): eight bytes with the
length of a header, the header as JSON, the bytes of the tensors. The library itself reads and
writes whole copies, and a courier is to hold as few as it can.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.bodies import MessageError

Arrays = Mapping[str, NDArray[np.generic]]
Framed = bytes | bytearray | memoryview
"""Weights as safetensors bytes, or a view of memory that holds them."""

PIECE_BYTES = 2**20
MOST_BYTES = 2**34
"""Most weights that one side lets the other announce, 16 GiB."""
LONGEST_HEADER_BYTES = 2**26
MOST_AXES = 32
LENGTH_BYTES = 8
REMEMBERED_HEADER_BYTES = 2**20
"""A longer header is read anew each time, so that what is remembered stays small."""
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class FramingError(MessageError):
    """Bytes that are no weights."""


def framed(arrays: Arrays) -> bytes:
    """Return the arrays as safetensors bytes.

    Raises:
        FramingError: as for pieces_of.
    """
    return b"".join(pieces_of(arrays)[1])


def pieces_of(
    arrays: Arrays, metadata: Mapping[str, str] | None = None
) -> tuple[int, Iterator[memoryview]]:
    """Return how many bytes the arrays are as safetensors, and these in pieces of 1 MiB at most.

    The pieces are views of the arrays' own memory.

    Raises:
        FramingError: a dtype that safetensors does not have, as complex numbers.
    """
    layout = tuple((name, array.dtype, array.shape) for name, array in arrays.items())
    header, length, order = _header_of(
        layout, None if metadata is None else tuple(metadata.items())
    )
    return len(header) + length, _pieces(header, arrays, order)


def gathered(pieces: Iterable[Framed], length: int) -> bytearray:
    """Return the pieces as one buffer of the announced length.

    Raises:
        FramingError: an impossible length, or other than so many bytes.
    """
    if not 0 <= length <= MOST_BYTES:
        raise FramingError("the weights are of an impossible length")
    # The pages of it take no memory before they are written.
    whole, at = bytearray(length), 0
    for piece in pieces:
        if at + len(piece) > length:
            break
        whole[at : at + len(piece)] = piece
        at += len(piece)
    else:
        if at == length:
            return whole
    raise FramingError("the weights have another length than was announced")


def arrays_in(framed: Framed) -> dict[str, NDArray[np.generic]]:
    """Return the arrays that safetensors bytes hold; they share their memory.

    Raises:
        FramingError: the bytes are not those of safetensors, or hold a dtype that NumPy lacks.
    """
    start = header_end(framed[:LENGTH_BYTES], len(framed))
    places = places_in(bytes(framed[LENGTH_BYTES:start]), len(framed) - start)
    return {
        name: np.frombuffer(framed, at.dtype, at.count, start + at.begin).reshape(at.shape)
        for name, at in places.items()
    }


@dataclass(frozen=True)
class Place:
    """Where a tensor lies behind the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int

    @property
    def count(self) -> int:
        """Its numbers."""
        return math.prod(self.shape)


def header_end(first: Framed, length: int) -> int:
    """Return where the tensors begin, from the first LENGTH_BYTES of so many in all.

    Raises:
        FramingError: an impossible length of the header.
    """
    header = int.from_bytes(first, "little")
    if length < LENGTH_BYTES + header or header > LONGEST_HEADER_BYTES:
        raise FramingError("the weights are cut off in their header")
    return LENGTH_BYTES + header


def places_in(header: bytes, length: int) -> Mapping[str, Place]:
    """Return where each tensor lies, from the header's JSON. length: of all tensors.

    Raises:
        FramingError: it is no such header, or the tensors overlap, leave gaps or are of a dtype
            that NumPy lacks.
    """
    if len(header) > REMEMBERED_HEADER_BYTES:
        return _read_places(header, length)
    return _remembered_places(header, length)


def _read_places(header: bytes, length: int) -> Mapping[str, Place]:
    try:
        about = json.loads(header)
        about.pop("__metadata__", None)
        _check_no_gaps(about, length)
        return MappingProxyType({name: _place(**one) for name, one in about.items()})
    except FramingError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FramingError("the header of the weights cannot be read") from error


# The updates of a round have one and the same header.
_remembered_places = lru_cache(maxsize=8)(_read_places)


@lru_cache(maxsize=8)
def _header_of(
    layout: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...],
    metadata: tuple[tuple[str, str], ...] | None,
) -> tuple[bytes, int, tuple[str, ...]]:
    """Return the header with its length, the bytes of the arrays, and their order in the file."""
    # The widest numbers first, so that each array begins at a multiple of its own width.
    order = sorted(layout, key=lambda one: (-one[1].itemsize, one[0]))
    begin, places = 0, {}
    for name, dtype, shape in order:
        end = begin + math.prod(shape) * dtype.itemsize
        places[name] = [begin, end]
        begin = end
    about: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    about |= {
        name: {"dtype": _name_of(dtype), "shape": list(shape), "data_offsets": places[name]}
        for name, dtype, shape in layout
    }
    text = json.dumps(about, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    header = len(text).to_bytes(LENGTH_BYTES, "little") + text
    return header, begin, tuple(name for name, _, _ in order)


def _name_of(dtype: np.dtype[Any]) -> str:
    name = _NAMES.get(dtype)
    if name is None:
        raise FramingError(f"safetensors has no tensors of {dtype}; send float32")
    return name


def _pieces(header: bytes, arrays: Arrays, order: Iterable[str]) -> Iterator[memoryview]:
    yield from _cut(memoryview(header))
    for name in order:
        # Contiguous arrays are not copied, and reshape gives a single number a length.
        flat = np.ascontiguousarray(arrays[name]).reshape(-1)
        yield from _cut(flat.view(np.uint8).data)


def _cut(whole: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(whole), PIECE_BYTES):
        yield whole[at : at + PIECE_BYTES]


def _check_no_gaps(about: dict[str, Any], length: int) -> None:
    at = 0
    for begin, end in sorted(one["data_offsets"] for one in about.values()):
        if type(begin) is not int or type(end) is not int or begin != at or end < begin:
            raise FramingError("the tensors of the weights overlap or leave gaps")
        at = end
    if at != length:
        raise FramingError("the weights have another length than their header tells")


def _place(*, dtype: str, shape: list[int], data_offsets: list[int]) -> Place:
    begin, end = data_offsets
    if len(shape) > MOST_AXES or any(type(n) is not int or not 0 <= n <= MOST_BYTES for n in shape):
        raise FramingError("a tensor of the weights has an impossible shape")
    place = Place(_DTYPES[dtype], tuple(shape), begin)
    if place.count * place.dtype.itemsize != end - begin:
        raise FramingError("a tensor of the weights has another size than its shape tells")
    return place
