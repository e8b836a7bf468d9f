"""What weights from elsewhere save: the same network at several epsilons, begun twice.

    python -m simulation.benchmark.transfer --data ../shared/data --dir runs/transfer [--json]

A public archive has viral pneumonia and half of the healthy children; a network learns there, in
one place and without privacy, to tell them apart. Four hospitals have bacterial pneumonia and the
other half, and learn with differential privacy: once from random weights, once from the archive's,
of which the head alone goes on learning. No child is on two sides. `before` is the AUROC at the
hospitals before their first round, `auroc` after the last. The same command goes on where it was
stopped; it takes a quarter of an hour on two cores.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from common.files import write_atomic
from common.models.start import FOLDER
from server.progress import Progress
from server.run import MODEL
from simulation.benchmark.table import Row, begin_with_environment, machine, table_of
from simulation.run import composed, simulate

EPSILONS = (1.0, 3.0, 8.0)
WEIGHTS = "archive.safetensors"
COMMON = ("experiment=pneumonia", "model=cnn", "simulation.engine=inprocess")
AT_THE_ARCHIVE = (
    "simulation.partition.by=equal",
    "simulation.partition.sites=1",
    "simulation.partition.shared_fraction=0.1",
    "training.optimizer=adamw",
    "training.lr=0.001",
    "training.batch_size=16",
    "training.local_steps=40",
    "rounds=10",
    "evaluate_every=5",
)
AT_THE_HOSPITALS = ("rounds=12", "evaluate_every=12", "privacy=patient_eps8")
Image = Mapping[str, str]


def main() -> None:
    """Train, and print the rows."""
    begin_with_environment()
    parser = argparse.ArgumentParser(prog="python -m simulation.benchmark.transfer")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--dir", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    rows = measured(options.data.resolve(), options.dir.resolve(), Console(stderr=True))
    if options.json:
        found = {"benchmark": "transfer", "machine": machine(), "rows": [dict(r) for r in rows]}
        sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")
        return
    Console().print(table_of("four hospitals, AUROC on held-out children", rows))


def measured(data: Path, folder: Path, console: Console) -> list[Row]:
    """Return a row for each way and epsilon; a run that was finished is not run again."""
    archive, hospitals = divided(data, folder)
    learned = _ran(folder / "archive-run", archive, AT_THE_ARCHIVE, console)
    console.print(f"archive: AUROC {_mean(learned, 'final'):.3f} on its own", highlight=False)
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    shutil.copyfile(folder / "archive-run" / MODEL, weights / WEIGHTS)
    os.environ[FOLDER] = str(weights)
    sha256 = hashlib.sha256((weights / WEIGHTS).read_bytes()).hexdigest()
    start = f"model.start={{file: {WEIGHTS}, sha256: {sha256}, fresh: []}}"
    ways = {
        "random": ["training.lr=1"],
        "archive's, head": [start, "model.trained=[head]", "training.lr=5"],
    }
    rows: list[Row] = []
    for way, settings in ways.items():
        for epsilon in EPSILONS:
            asked = [*AT_THE_HOSPITALS, *settings, f"privacy.target_epsilon={epsilon:g}"]
            name = f"{way.split(chr(39))[0]}-{epsilon:g}"
            found = _ran(folder / name, hospitals, asked, console)
            rows.append(
                {
                    "weights": way,
                    "epsilon": epsilon,
                    "before": _mean(found, "initial"),
                    "auroc": _mean(found, "final"),
                    "worst": float(found["final"]["worst"]["auroc"]),
                }
            )
    return rows


def divided(data: Path, folder: Path) -> tuple[Path, Path]:
    """Write the two manifests of the radiographs; return the archive's and the hospitals' folder.

    A child with both kinds of pneumonia is at the hospitals; a healthy one is where the SHA-256 of
    its number says.
    """
    with (data / "manifest.csv").open(newline="") as file:
        images = [row for row in csv.DictReader(file) if row["dataset"] == "cxr_pneumonia"]
    if not images:
        raise ValueError(f"{data}/manifest.csv has no cxr_pneumonia; give the folder that has it")
    bacterial = {_person(row) for row in images if "_bacteria_" in row["path"]}
    sides: dict[str, list[Image]] = {"archive": [], "hospitals": []}
    for row in images:
        at_hospitals = (
            _person(row) in bacterial if row["label"] == "pneumonia" else _drawn(_person(row))
        )
        sides["hospitals" if at_hospitals else "archive"].append(
            {**row, "path": str(data / row["path"])}
        )
    for side, rows in sides.items():
        write_atomic(folder / side / "manifest.csv", _as_csv(rows).encode())
    return folder / "archive", folder / "hospitals"


def _person(row: Image) -> str:
    found = re.search(r"person\d+|(?:NORMAL2-)?IM-\d+", row["path"])
    if found is None:
        raise ValueError(f"{row['path']} names no child; the pattern of the data set has changed")
    return found[0]


def _drawn(person: str) -> bool:
    return hashlib.sha256(person.encode()).digest()[0] % 2 == 0


def _as_csv(rows: Iterable[Image]) -> str:
    text = io.StringIO()
    rows = list(rows)
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _ran(folder: Path, data: Path, settings: Iterable[str], console: Console) -> dict[str, Any]:
    console.print(f"[bold]{folder.name}[/]", highlight=False)
    overrides = [*COMMON, *settings, f"data.root={data}"]
    folder.mkdir(parents=True, exist_ok=True)
    return simulate(composed(folder, overrides), Progress(console))


def _mean(result: Mapping[str, Any], when: str) -> float:
    return float(result[when]["mean"]["auroc"])


if __name__ == "__main__":
    main()
