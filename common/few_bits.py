"""Numbers in few bits: which are the largest, the upper half of a float32, blocks, two in a byte.

Legend of shapes: N numbers of a tensor, M of them that travel, B blocks.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def largest_of(values_N: NDArray[np.generic], share: float) -> NDArray[np.bool_]:
    """Return which numbers are the largest: a share of them, at least one."""
    count = kept_of(len(values_N), share)
    # Of equals the first, whatever the machine.
    chosen = np.argsort(-np.abs(values_N), kind="stable")[:count]
    which_N = np.zeros(len(values_N), bool)
    which_N[chosen] = True
    return which_N


def kept_of(count: int, share: float) -> int:
    """Return how many of so many numbers travel."""
    return max(1, round(share * count))


def to_bfloat16(values_N: NDArray[np.generic], draws: np.random.Generator) -> NDArray[np.uint16]:
    """Return the upper halves of float32 numbers, rounded by chance to one of the two nearest."""
    bits_N = np.ascontiguousarray(values_N, np.float32).view(np.uint32)
    drawn_N = draws.integers(0, 2**16, len(bits_N), dtype=np.uint32)
    # A number of the largest exponent would become infinite.
    carried_N = np.where((bits_N & 0x7FFFFFFF) >= 0x7F7F0000, bits_N, bits_N + drawn_N)
    return (carried_N >> 16).astype(np.uint16)


def in_blocks(values_N: NDArray[np.generic], block: int, largest: int) -> tuple[Floats, Floats]:
    """Return each block's scale, [B], and the numbers in blocks, [B, block], zeros at the end."""
    blocks = blocks_of_numbers(len(values_N), block)
    padded = np.zeros(blocks * block, np.float32)
    padded[: len(values_N)] = values_N
    blocks_BK = padded.reshape(blocks, block)
    return np.abs(blocks_BK).max(axis=1) / np.float32(largest), blocks_BK


def blocks_of_numbers(count: int, block: int) -> int:
    """Return how many blocks so many numbers have."""
    return -(-count // block)


def paired(small_M: NDArray[np.int8]) -> Bytes:
    """Return two numbers of -8 to 7 in each byte, the first in its lower half."""
    even = np.append(small_M, np.int8(0)) if len(small_M) % 2 else small_M
    halves = even.view(np.uint8) & np.uint8(0x0F)
    both: Bytes = halves[0::2] | (halves[1::2] << np.uint8(4))
    return both


def unpaired(both: Bytes, count: int) -> NDArray[np.int8]:
    """Return the first so many of the numbers that stand two in a byte."""
    halves = np.stack([both & 0x0F, both >> 4], axis=1).reshape(-1)[:count]
    return ((halves ^ 0x08).astype(np.int8) - np.int8(8)).astype(np.int8)
