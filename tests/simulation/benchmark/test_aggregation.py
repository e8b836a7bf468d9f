from pathlib import Path

import numpy as np
import pytest

from simulation.benchmark import aggregation
from simulation.benchmark.aggregation import SITES, rows_of_size, ways_of


def test_each_way_combines_all_updates(tmp_path: Path) -> None:
    model = {"w0": np.zeros(3, np.float32), "w1": np.ones(3, np.float32)}
    ways = ways_of(lambda: aggregation._updates(model), model, tmp_path)
    found = {name: way() for name, way in ways.items() if name != "copy"}
    # Half of the updates have the two tensors the other way round.
    for name in ("mean", "median", "trimmed_mean"):
        assert found[name]["w0"].tolist() == [0.5] * 3  # type: ignore[index]
    assert found["krum"]["w0"].tolist() in ([0.0] * 3, [1.0] * 3)  # type: ignore[index]


def test_rows_are_of_all_bytes_and_the_copy_is_the_measure() -> None:
    rows = rows_of_size(1, quick=True)
    names = [str(row["name"]) for row in rows]
    assert names == [
        f"{way}@{SITES}x1MB" for way in ("copy", "mean", "median", "trimmed_mean", "krum")
    ]
    for row in rows:
        assert float(row["gb_per_s"]) * float(row["s"]) == pytest.approx(SITES / 1000, rel=0.01)
    assert rows[0]["of_copy"] == 1.0
