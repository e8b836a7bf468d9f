"""The archive and the hospitals share no child, and nobody is lost."""

import csv
from pathlib import Path

import pytest

from simulation.benchmark.transfer import divided

NAMES = [
    *(("normal", f"train/IM-{n:04d}-0001.jpeg") for n in range(20)),
    *(("normal", f"train/NORMAL2-IM-{n:04d}-0001.jpeg") for n in range(20)),
    *(("pneumonia", f"train/person{n}_virus_{n}.jpeg") for n in range(10)),
    *(("pneumonia", f"train/person{n}_bacteria_{n}.jpeg") for n in range(5, 15)),
]


def write(data: Path, dataset: str) -> None:
    data.mkdir()
    with (data / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "dataset", "label"])
        writer.writerows([path, dataset, label] for label, path in NAMES)


def test_no_child_is_on_two_sides(tmp_path: Path) -> None:
    write(tmp_path / "data", "cxr_pneumonia")
    sides = [
        list(csv.DictReader((folder / "manifest.csv").open()))
        for folder in divided(tmp_path / "data", tmp_path / "out")
    ]
    paths = [[Path(row["path"]).name for row in rows] for rows in sides]
    assert sorted(paths[0] + paths[1]) == sorted(Path(path).name for _, path in NAMES)
    people = [{name.split("_")[0] for name in side if "person" in name} for side in paths]
    assert people[0] == {f"person{n}" for n in range(5)}
    assert not people[0] & people[1]
    assert all(any("IM-" in name for name in side) for side in paths)
    assert all(Path(row["path"]).is_relative_to(tmp_path / "data") for row in sides[0])


def test_other_data_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data", "retina")
    with pytest.raises(ValueError, match="has no cxr_pneumonia"):
        divided(tmp_path / "data", tmp_path / "out")
