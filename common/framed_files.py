"""Weights in files, of which one tensor at a time is in memory; the file's name is its SHA-256."""

import hashlib
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.files import write_pieces
from common.framing import LENGTH_BYTES, MOST_BYTES, Arrays, header_end, pieces_of, places_in

BLOCK = 2**16
"""Numbers that are worked on at once where a model is large."""
Layout = tuple[tuple[int, ...], np.dtype[Any]]
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class WeightsReference:
    """Names weights that lie beside a message."""

    sha256: str
    """Of their bytes as safetensors, in hexadecimal digits; the name of their file."""
    length_bytes: int

    def __post_init__(self) -> None:
        # Exactly these types: what arrives may be an infinite number, or True.
        typed = type(self.sha256) is str and type(self.length_bytes) is int
        if not (typed and _SHA256.fullmatch(self.sha256) and 0 < self.length_bytes <= MOST_BYTES):
            raise ValueError("weights are named by a SHA-256 and a possible length")


class LazyArrays(Mapping[str, NDArray[np.generic]], ABC):
    """Arrays that are made when they are asked for, and not kept."""

    @abstractmethod
    def layout(self) -> dict[str, Layout]:
        """Return the shape and the dtype of each tensor, without making any."""

    def blocks(self, name: str) -> Iterator[NDArray[np.generic]]:
        """Yield the numbers of a tensor in a row, BLOCK at a time."""
        flat = self[name].reshape(-1)
        for first in range(0, flat.size, BLOCK):
            yield flat[first : first + BLOCK]


class FramedFile(LazyArrays):
    """The arrays of a file of safetensors; each is read when it is asked for, and not kept."""

    def __init__(self, path: Path) -> None:
        """Read the header. The file stays open: what was opened is what is read, deleted or not.

        Raises:
            FramingError: the bytes are not those of safetensors.
            OSError: the file cannot be read.
        """
        self._file = path.open("rb")
        self.length_bytes = os.fstat(self._file.fileno()).st_size
        self._start = header_end(self._file.read(LENGTH_BYTES), self.length_bytes)
        header = self._file.read(self._start - LENGTH_BYTES)
        self._places = places_in(header, self.length_bytes - self._start)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        at = self._places[name]
        return self._read(at.begin, at.dtype, at.count).reshape(at.shape)

    def blocks(self, name: str) -> Iterator[NDArray[np.generic]]:
        """Yield the numbers of a tensor in a row, BLOCK at a time."""
        at = self._places[name]
        for first in range(0, at.count, BLOCK):
            count = min(BLOCK, at.count - first)
            yield self._read(at.begin + first * at.dtype.itemsize, at.dtype, count)

    def _read(self, begin: int, dtype: np.dtype[Any], count: int) -> NDArray[np.generic]:
        raw = os.pread(self._file.fileno(), count * dtype.itemsize, self._start + begin)
        return np.frombuffer(raw, dtype)

    def layout(self) -> dict[str, Layout]:
        """Return the shape and the dtype of each tensor."""
        return {name: (at.shape, at.dtype) for name, at in self._places.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def layout_of(arrays: Arrays) -> dict[str, Layout]:
    """Return the shape and the dtype of each array, without reading any."""
    if isinstance(arrays, LazyArrays):
        return arrays.layout()
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def bytes_of(arrays: Arrays) -> int:
    """Return how many bytes the numbers of the arrays are."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout_of(arrays).values())


def blocks_of(arrays: Arrays, name: str) -> Iterator[NDArray[np.generic]]:
    """Yield the numbers of an array in a row, BLOCK at a time; a file's are read so."""
    if isinstance(arrays, LazyArrays):
        yield from arrays.blocks(name)
        return
    flat = arrays[name].reshape(-1)
    for first in range(0, flat.size, BLOCK):
        yield flat[first : first + BLOCK]


def write_framed(folder: Path, arrays: Arrays) -> WeightsReference:
    """Write the arrays into the folder, unless they are there; return what they are called."""
    reference = reference_to(arrays)
    path = folder / reference.sha256
    if not path.exists():
        write_pieces(path, pieces_of(arrays)[1])
    return reference


def reference_to(arrays: Arrays) -> WeightsReference:
    """Return what the arrays are called."""
    length, pieces = pieces_of(arrays)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return WeightsReference(sha256=digest.hexdigest(), length_bytes=length)
