"""Ways to combine updates that a few faulty or malicious ones cannot move far, in float64.

Each needs all updates at once, so these lie in a file while some numbers of each are in memory; the
same updates in the same order give the same bytes. None weights the sites: a weight is a site's own
word, and one that lies would gain by it. Counters take the largest value, as in the mean.
"""

import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from common.framed_files import BLOCK, Layout, blocks_of, layout_of
from common.framing import Arrays

Stack = NDArray[np.floating[Any]]
"""The same block of every update, [sites, numbers], in the updates' own precision."""


def median(stack: Stack) -> NDArray[np.float64]:
    """Return each coordinate's median (Yin et al., ICML 2018, Definition 1).

    It lies among the honest values as long as fewer than half of all are faulty.
    """
    ordered, middle = _ordered(stack), len(stack) // 2
    two = ordered[:, middle - 1 + len(stack) % 2 : middle + 1]
    return np.asarray(two.mean(axis=1, dtype=np.float64))


def trimmed_mean(stack: Stack, faulty: int) -> NDArray[np.float64]:
    """Return each coordinate's mean without its `faulty` largest and smallest values.

    Yin et al., ICML 2018, Definition 2. It lies among the honest values.
    """
    kept = _ordered(stack)[:, faulty : len(stack) - faulty]
    return np.asarray(kept.mean(axis=1, dtype=np.float64))


def _ordered(stack: Stack) -> Stack:
    # Numbers that are sorted together side by side: six times as fast as along the other axis.
    return np.sort(np.ascontiguousarray(stack.T), axis=1)


def krum(squared: NDArray[np.float64], faulty: int) -> int:
    """Return whose squared distances to its n - faulty - 2 nearest others have the least sum.

    Blanchard et al., NeurIPS 2017, Section 4; of two that are as near it is the first. squared:
    between all updates, [n, n].
    """
    others = np.sort(squared, axis=1)[:, 1 : len(squared) - faulty - 1]
    return int(np.argmin(others.sum(axis=1)))


def by_coordinate(
    updates: Iterable[Arrays], rule: Callable[[Stack], Stack], least: int, folder: Path
) -> dict[str, Tensor] | None:
    """Return what the rule makes of each coordinate; None with fewer than `least` updates.

    folder: where the updates lie meanwhile.
    """
    with _together(updates, folder) as all_of:
        if all_of is None or all_of.count < least:
            return None
        return {name: _combined(all_of, name, rule) for name in all_of.layout}


def nearest(
    updates: Iterable[Arrays], faulty: int, least: int, folder: Path
) -> dict[str, Tensor] | None:
    """Return the update that Krum chooses; None with fewer than `least` updates.

    folder: where the updates lie meanwhile.
    """
    with _together(updates, folder) as all_of:
        if all_of is None or all_of.count < least:
            return None
        chosen = krum(_squared_distances(all_of), faulty)
        return {n: _combined(all_of, n, lambda stack: stack[chosen]) for n in all_of.layout}


class _Together:
    """All updates in one file, which has no name: whatever ends the process ends it too."""

    def __init__(
        self, updates: Iterable[Arrays], layout: Mapping[str, Layout], file: IO[bytes]
    ) -> None:
        self.layout = {name: layout[name] for name in sorted(layout)}
        self._file = file
        self.count, self._begins, self._length = 0, {}, 0
        for name, (shape, dtype) in self.layout.items():
            self._begins[name] = self._length
            self._length += math.prod(shape) * dtype.itemsize
        for update in updates:
            self.count += 1
            for name in self.layout:
                for block in blocks_of(update, name):
                    file.write(np.ascontiguousarray(block).data)
        file.flush()

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the same numbers of all updates, [sites, numbers], some at a time."""
        shape, dtype = self.layout[name]
        size, step = math.prod(shape), max(BLOCK * 16 // max(self.count, 16), 1)
        for first in range(0, size, step):
            count = min(step, size - first)
            stack = np.empty((self.count, count), dtype)
            for site, row in enumerate(stack):
                at = site * self._length + self._begins[name] + first * dtype.itemsize
                raw = os.pread(self._file.fileno(), count * dtype.itemsize, at)
                row[:] = np.frombuffer(raw, dtype)
            yield stack


@contextmanager
def _together(updates: Iterable[Arrays], folder: Path) -> Iterator[_Together | None]:
    following = iter(updates)
    first = next(following, None)
    if first is None:
        yield None
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        yield _Together(itertools.chain([first], following), layout_of(first), file)


def _combined(all_of: _Together, name: str, rule: Callable[[Stack], Stack]) -> Tensor:
    shape, dtype = all_of.layout[name]
    whole: NDArray[Any] = np.empty(shape, np.float64 if dtype.kind == "f" else dtype)
    flat, at = whole.reshape(-1), 0
    for stack in all_of.blocks(name):
        part = flat[at : at + stack.shape[1]]
        at += stack.shape[1]
        part[:] = rule(stack) if dtype.kind == "f" else stack.max(axis=0)
    return torch.from_numpy(whole)


def _squared_distances(all_of: _Together) -> NDArray[np.float64]:
    total = np.zeros(all_of.count * (all_of.count - 1) // 2)
    for name, (_, dtype) in all_of.layout.items():
        if dtype.kind == "f":
            for stack in all_of.blocks(name):
                # One by one, not by products: a far update would drown the others' differences.
                total += pdist(stack.astype(np.float64), "sqeuclidean")
    return np.asarray(squareform(total))
