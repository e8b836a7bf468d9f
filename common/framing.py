"""Weights as safetensors in pieces, without torch and without a second copy of them.

The format is that of safetensors (https://github.com/huggingface/safetensors): eight bytes with the
length of a header, the header as JSON, the bytes of the tensors. The library itself reads and
writes whole copies, and a courier is to hold as few as it can.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.bodies import MessageError

Arrays = Mapping[str, NDArray[np.generic]]

PIECE_BYTES = 2**20
MOST_BYTES = 2**34
"""Most weights that one side lets the other announce, 16 GiB."""
LONGEST_HEADER_BYTES = 2**26
_LENGTH_BYTES = 8
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


def pieces_of(arrays: Arrays) -> tuple[int, Iterator[bytes]]:
    """Return how many bytes the arrays are as safetensors, and these in pieces of 1 MiB at most.

    Raises:
        FramingError: a dtype that safetensors does not have, as complex numbers.
    """
    # The widest numbers first, so that each array begins at a multiple of its own width.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    begin, places = 0, {}
    for name in order:
        end = begin + arrays[name].nbytes
        places[name] = [begin, end]
        begin = end
    about = {
        name: {"dtype": _name_of(a), "shape": list(a.shape), "data_offsets": places[name]}
        for name, a in arrays.items()
    }
    text = json.dumps(about, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    header = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    return len(header) + begin, _pieces(header, arrays, order)


def gathered(pieces: Iterable[bytes], length: int) -> bytearray:
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


def arrays_in(framed: bytearray | memoryview) -> dict[str, NDArray[np.generic]]:
    """Return the arrays that safetensors bytes hold; they share their memory.

    Raises:
        FramingError: the bytes are not those of safetensors, or hold a dtype that NumPy lacks.
    """
    length = int.from_bytes(framed[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(framed) < start or length > LONGEST_HEADER_BYTES:
        raise FramingError("the weights are cut off in their header")
    try:
        about = json.loads(bytes(framed[_LENGTH_BYTES:start]))
        about.pop("__metadata__", None)
        return {name: _array(framed, start, **one) for name, one in _without_gaps(framed, about)}
    except FramingError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FramingError("the header of the weights cannot be read") from error


def _name_of(array: NDArray[np.generic]) -> str:
    name = _NAMES.get(array.dtype)
    if name is None:
        raise FramingError(f"safetensors has no tensors of {array.dtype}; send float32")
    return name


def _pieces(header: bytes, arrays: Arrays, order: list[str]) -> Iterator[bytes]:
    yield from _cut(memoryview(header))
    for name in order:
        # Contiguous arrays are not copied, and reshape gives a single number a length.
        flat = np.ascontiguousarray(arrays[name]).reshape(-1)
        yield from _cut(flat.view(np.uint8).data)


def _cut(whole: memoryview) -> Iterator[bytes]:
    for at in range(0, len(whole), PIECE_BYTES):
        yield bytes(whole[at : at + PIECE_BYTES])


def _without_gaps(
    framed: bytearray | memoryview, about: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    at, start = 0, _LENGTH_BYTES + int.from_bytes(framed[:_LENGTH_BYTES], "little")
    for begin, end in sorted(one["data_offsets"] for one in about.values()):
        if type(begin) is not int or type(end) is not int or begin != at or end < begin:
            raise FramingError("the tensors of the weights overlap or leave gaps")
        at = end
    if start + at != len(framed):
        raise FramingError("the weights have another length than their header tells")
    return list(about.items())


def _array(
    framed: bytearray | memoryview,
    start: int,
    *,
    dtype: str,
    shape: list[int],
    data_offsets: list[int],
) -> NDArray[np.generic]:
    kind: np.dtype[Any] = _DTYPES[dtype]
    begin, end = data_offsets
    if any(type(n) is not int or n < 0 for n in shape):
        raise FramingError("a tensor of the weights has an impossible shape")
    count = math.prod(shape)
    if count * kind.itemsize != end - begin:
        raise FramingError("a tensor of the weights has another size than its shape tells")
    array: NDArray[np.generic] = np.frombuffer(framed, kind, count, start + begin)
    return array.reshape(shape)
