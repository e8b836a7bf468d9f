import csv
from pathlib import Path

import pytest

from simulation.benchmark.scale import IMAGES, exponent, row_of, write_data


def test_the_exponent_is_that_of_the_power() -> None:
    assert exponent((10, 3.0), (1000, 300.0)) == pytest.approx(1.0)
    assert exponent((10, 3.0), (100, 300.0)) == pytest.approx(2.0)


def test_every_hospital_has_its_images_of_both_labels(tmp_path: Path) -> None:
    write_data(tmp_path / "data", 3, 8)
    rows = list(csv.DictReader((tmp_path / "data" / "manifest.csv").open()))
    assert len(rows) == 3 * IMAGES
    assert {row["site"] for row in rows} == {"h0000", "h0001", "h0002"}
    assert {row["label"] for row in rows} == {"normal", "pneumonia"}
    assert all((tmp_path / "data" / row["path"]).is_file() for row in rows)


def test_a_row_is_of_a_whole_run() -> None:
    row, round_s = row_of(2, (1, 1.0))
    assert row["name"] == "ours@2"
    assert row["engine"] == "inprocess"
    assert float(row["ms"]) == pytest.approx(1000 * round_s / 2)
    assert float(row["first_s"]) > 0
    assert float(row["rss_mb"]) > 100
    # In one process there is no actor; what Flower or git may start is small.
    assert 0 <= float(row["actor_mb"]) < float(row["rss_mb"])
