"""One federated, private round of every network: what a study may name can be run."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from common.models.catalogue import CARDS
from server.progress import Progress
from simulation.run import composed, simulate
from tests.common.models.tiny import SMALLEST, size_for

PATIENTS = 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of pictures with a label and a mask each, from two sites."""
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    rows = []
    for site in ("north", "south"):
        for patient in range(PATIENTS):
            name = f"{site}{patient}"
            image = draws.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"{name}.png")
            mask = np.zeros((32, 32), np.uint8)
            mask[8:20, 8:20] = 1
            Image.fromarray(mask).save(folder / f"{name}_mask.png")
            label = ("normal", "pneumonia")[patient % 2]
            rows.append([f"{name}.png", site, label, f"{name}_mask.png"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "site", "label", "mask"], *rows])
    return folder


def run(folder: Path, pictures: Path, task: str, *overrides: str) -> dict[str, Any]:
    mask = "mask" if task == "segmentation" else "null"
    settings = [
        f"task={task}",
        "data=pictures",
        "simulation=real",
        "simulation.engine=inprocess",
        f"data.root={pictures}",
        "+simulation.partition.by=column",
        "+simulation.partition.columns=[site]",
        f"+simulation.partition.mask_column={mask}",
        "+simulation.partition.min_patients_per_site=1",
        "rounds=1",
        "data.held_out=0.5",
        "privacy.mechanism=dp_sgd",
        "privacy.noise_multiplier=1.0",
        "training.batch_size=3",
        *overrides,
    ]
    return simulate(composed(folder, settings), Progress(Console(quiet=True)))


@pytest.mark.parametrize("name", SMALLEST)
def test_a_private_federated_round_of_every_network(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    widths = [f"model.{key}={value}" for key, value in SMALLEST[name].items()]
    size = f"data.size=[{size_for(name)},{size_for(name)}]"
    task = CARDS[name].task
    result = run(tmp_path, pictures, task, f"model={name}", "model.norm_groups=2", size, *widths)
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == {"north", "south"}
    before, after = (result[when]["mean"][result["headline"]] for when in ("initial", "final"))
    assert before is not None
    assert after is not None
