"""Which changes to images a finished study's domain notices: shares outside, change by change.

    python -m simulation.benchmark.strange RUN

RUN is the folder of a simulated run of volumes with evaluation=shift. Each row is a change, done to
the first patients of every hospital; `outside` is the share of them that `wardround-site predict`
calls so, `distance` the median over its limit.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.ndimage import gaussian_filter

from client.prediction.inputs import inputs_at
from client.prediction.run import Settings, predict
from client.prediction.table import OUTSIDE
from common.finished import load_finished
from simulation.benchmark.table import PIPED_WIDTH, Row, table_of

EACH = 10
"""Patients of each hospital."""
Volume = NDArray[np.float32]
CHANGES: Mapping[str, Callable[[Volume, np.random.Generator], Volume]] = {
    "as they are": lambda image, _: image,
    "inverted": lambda image, _: image.max() - image,
    "blurred, 2 voxels": lambda image, _: gaussian_filter(image, 2.0),
    "turned by 90 degrees": lambda image, _: np.rot90(image),
    "upside down": lambda image, _: image[:, ::-1],
    "as much noise as contrast": lambda image, draws: image + _noise(image, draws) * image.std(),
    "nothing but noise": lambda image, draws: _noise(image, draws),
}


def _noise(image: Volume, draws: np.random.Generator) -> Volume:
    return draws.standard_normal(image.shape, dtype=np.float32)


def main() -> None:
    """Measure and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m simulation.benchmark.strange")
    parser.add_argument("run", type=Path, help="the folder of a run with evaluation=shift")
    run = parser.parse_args().run
    rows = [_row(name, change, run) for name, change in CHANGES.items()]
    Console(width=PIPED_WIDTH).print(table_of("images outside the federation's domain", rows))


def _row(name: str, change: Callable[[Volume, np.random.Generator], Volume], run: Path) -> Row:
    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for hospital in sorted((run / "data").glob("*/images")):
            for path in sorted(hospital.glob("*.nii"))[:EACH]:
                image: Any = nib.load(path)
                values = np.ascontiguousarray(change(image.get_fdata(dtype=np.float32), draws))
                nib.save(nib.Nifti1Image(values, image.affine), images / path.name)
        output = Path(folder, "answers")
        inputs = inputs_at(images, output).inputs
        found = predict(load_finished(run), inputs, Settings(output=output))
    distances = [row.distance for row in found if row.distance is not None]
    outside = sum(row.domain == OUTSIDE for row in found)
    return {
        "name": name,
        "patients": len(found),
        "outside": f"{outside / len(found):.0%}",
        "distance": round(median(distances), 2),
    }


if __name__ == "__main__":
    main()
