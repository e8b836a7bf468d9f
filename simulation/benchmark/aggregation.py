"""How fast updates become one: bytes of updates a second, against a copy of as many bytes.

    python -m simulation.benchmark.aggregation [--json] [--quick]

64 updates of a model of so many megabytes (several tensors, float32), by each way that a strategy
may combine them. The mean takes the updates from memory, one at a time; the others put all of them
into files first, and that is in their time. `gb_per_s` is the median of five turns (one where the
updates are more than 2 GB), `of_copy` its share of the copy's.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median as middle_of
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.aggregation import weighted_mean
from server.robust import by_coordinate, median, nearest, trimmed_mean
from simulation.benchmark.table import Row, begin_with_environment, by_turns, run_benchmark

SITES, FAULTY = 64, 8
MEGABYTES, MEGABYTES_QUICK = (30, 300), (3,)
TENSORS = 16
TURNS = 5
MOST_BYTES = 2 * 10**9
"""Of all updates; with more there is one turn."""
Updates = Callable[[], Iterator[dict[str, NDArray[Any]]]]


def main() -> None:
    """Measure each way and size, and print the rows."""
    begin_with_environment()
    about = f"{SITES} updates combined: gigabytes of updates a second"
    run_benchmark("aggregation", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a way to combine and size."""
    return [
        row for mb in (MEGABYTES_QUICK if quick else MEGABYTES) for row in rows_of_size(mb, quick)
    ]


def rows_of_size(megabytes: int, quick: bool) -> list[Row]:
    """Return the copy's row and one a way to combine."""
    numbers = megabytes * 10**6 // (4 * TENSORS)
    draws = np.random.default_rng(0)
    model = {f"w{n}": draws.standard_normal(numbers, np.float32) for n in range(TENSORS)}
    total = SITES * TENSORS * numbers * 4
    turns = 1 if quick or total > MOST_BYTES else TURNS
    with tempfile.TemporaryDirectory(prefix="wardround-aggregation-") as folder:
        ways = ways_of(partial(_updates, model), model, Path(folder))
        seconds = by_turns(ways, turns, time.perf_counter)
    copied = total / 1e9 / middle_of(seconds["copy"])
    return [
        {
            "name": f"{way}@{SITES}x{megabytes}MB",
            "gb_per_s": total / 1e9 / middle_of(taken),
            "of_copy": total / 1e9 / middle_of(taken) / copied,
            "s": middle_of(taken),
            "turns": turns,
        }
        for way, taken in seconds.items()
    ]


def ways_of(
    updates: Updates, model: dict[str, NDArray[Any]], folder: Path
) -> dict[str, Callable[[], object]]:
    """Return the copy and each way to combine, by name."""
    target = {name: np.empty_like(array) for name, array in model.items()}

    def copy() -> None:
        for update in updates():
            for name, array in update.items():
                np.copyto(target[name], array)

    cut = partial(trimmed_mean, faulty=FAULTY)
    return {
        "copy": copy,
        "mean": lambda: weighted_mean((update, 37.0) for update in updates()),
        "median": lambda: by_coordinate(updates(), median, SITES, folder),
        "trimmed_mean": lambda: by_coordinate(updates(), cut, SITES, folder),
        "krum": lambda: nearest(updates(), FAULTY, SITES, folder),
    }


def _updates(model: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield unlike updates of which no two are in memory: the same numbers, turned round."""
    names = list(model)
    for site in range(SITES):
        shift = site % len(names)
        turned = names[shift:] + names[:shift]
        yield {name: model[other] for name, other in zip(names, turned, strict=True)}


if __name__ == "__main__":
    main()
